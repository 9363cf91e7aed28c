"""Small learning rates, whose weight decay drowns in rounding, are set to 1 on the copy and put in again afterwards."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightball.optim.auditing.audited import number
from lightball.optim.auditing.responses import Maker, excitation, held
from lightball.optim.auditing.rule import SINGLE
from lightball.optim.auditing.stand_in import StandIn

Moves = tuple[Tensor, Tensor]
_SMALL = 1e-3
_ROUNDING = 1e-14  # of moves from positions of size 1


def raised_rates(optimizer: Optimizer, make: Maker, layout: StandIn) -> frozenset[int]:
    """The groups with a small rate that their moves, with gradients and without, are proportional to."""
    rates = {k: number(group.get("lr")) or 0.0 for k, group in enumerate(optimizer.param_groups)}
    small = frozenset(k for k, rate in rates.items() if 0 < rate < _SMALL)
    if not small:
        return small
    now, at_one = _moves(make, layout.size), _moves(partial(make, raised=small), layout.size)
    return frozenset(k for k in small if _follows(now, at_one, layout.slices[k], rates[k]))


def factor(optimizer: Optimizer, layout: StandIn, index: int) -> float:
    """The rate of a group in units of the one that its stand-in has: 1 where it was not changed."""
    real, probed = (number(o.param_groups[index].get("lr")) for o in (optimizer, layout.optimizer))
    return 1.0 if real is None or not probed or real == probed else real / probed


def _moves(make: Maker, size: int) -> Moves:
    """From 0 under gradients, and from a start without any."""
    _, start, gradients = excitation(size)
    return held(make, gradients, torch.zeros_like(start)), held(make, torch.zeros_like(gradients), start)


def _follows(now: Moves, at_one: Moves, part: slice, rate: float) -> bool:
    rooms = (0.0, _ROUNDING)  # there is no rounding at 0
    moves = zip(now, at_one, rooms, strict=True)
    return part.start < part.stop and all(_agree(a[:, part], rate * b[:, part], room) for a, b, room in moves)


def _agree(a: Tensor, b: Tensor, room: float) -> bool:
    return bool((a - b).abs().max() <= SINGLE * b.abs().max() + room)
