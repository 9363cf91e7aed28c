"""Which way an optimizer leaves the linear family: from how its steps follow the size of the gradients."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from lightball.optim.auditing.responses import LATE, SCALES, Maker, Responses, excitation, from_zero, held

_SAME = 1e-5  # relative; what single precision leaves of equal runs, with room
_CHANGED = 1e-6  # over a few steps, of methods whose rates change slowly
_SCALE_FREE = 0.05  # by which the steps of an adaptive method may change when gradients grow a thousandfold
_MEMORY = 1e-9  # of the largest step; what moves on more than that after its gradient has memory


def linear_scale(runs: dict[float, Tensor]) -> float | None:
    """The scale to look closer at: 1, a small one if large gradients are cut, none if runs are nowhere proportional.

    ``runs`` start from 0 and are in units of their scale, as :func:`runs_from_zero` makes them.
    """
    proportional = [_same(runs[small], runs[large]) for small, large in pairwise(SCALES)]
    if not proportional[0]:
        return None
    return 1.0 if all(proportional) else SCALES[0]


def _same(a: Tensor, b: Tensor, tolerance: float = _SAME) -> bool:
    return bool((a - b).abs().max() <= tolerance * torch.maximum(a.abs().max(), b.abs().max()))


def is_additive(make: Maker, part: slice, scale: float) -> bool:
    """Whether the run of a sum is the sum of the runs, parameters included, for the elements of one group."""
    _, start, gradients = excitation(make().size)
    other_start, other = start.flip(0), gradients.flip(1)

    def run(g: Tensor, x: Tensor) -> Tensor:
        return make().run(scale * g, scale * x)[:, part] / scale

    return _same(run(gradients + other, start + other_start), run(gradients, start) + run(other, other_start))


def is_random(make: Maker, once: Tensor, part: slice) -> bool:
    """Whether a second run goes elsewhere than ``once``, that of the smallest gradients, for one group."""
    again = from_zero(make, SCALES[0])[:, part]
    difference, size = (again - once[:, part]).abs().max(), once[:, part].abs().max()
    return bool(difference > _CHANGED * size)


def remembers_beside_noise(make: Maker, part: slice) -> bool:
    """As :func:`has_memory`, from runs with and without an impulse that draw the same random numbers."""
    size = make().size
    impulse, _, gradients = excitation(size)
    runs = []
    for height in (1.0, 0.0):
        torch.default_generator.manual_seed(0)
        driven = torch.zeros_like(gradients)
        driven[0] = height * impulse
        runs.append(held(make, driven, torch.zeros(size, dtype=driven.dtype))[:, part])
    return has_memory(runs[0] - runs[1])


def changes_in_time(first: Tensor, late: Tensor) -> bool:
    """Whether an impulse at a later step has another response than the same at the first one."""
    return not _same(first[: len(late) - LATE], late[LATE:], _CHANGED)


def has_memory(moves: Tensor, step: int = 0) -> bool:
    """Whether parameters held in place are still moved after the impulse of a step."""
    return bool(moves[step + 1 :].abs().max() > _MEMORY * moves.abs().max())


def kind_of(make: Maker, part: slice) -> Literal["sign", "adaptive", "other"]:
    """``sign``, ``adaptive`` or ``other``, for the elements of one group of an optimizer that is not linear."""
    _, start, gradients = excitation(make().size)
    for at in (torch.zeros_like(start), start):  # layer-wise methods follow the size of the weights too
        small, large = (_moves(make, size * gradients, at)[:, part] for size in (1.0, 1e3))
        sizes = small.abs()
        if not at.any() and sizes.max() > 0 and _same(sizes, sizes.max().expand_as(sizes)):
            return "sign"
        later = len(small) // 2  # some methods begin as plain SGD
        if abs(float(large[later:].norm() / small[later:].norm()) - 1) < _SCALE_FREE:
            return "adaptive"
    return "other"


def _moves(make: Maker, gradients: Tensor, at: Tensor) -> Tensor:
    return make().run(gradients, at, hold=True) - at


def runs_from_zero(make: Maker) -> dict[float, Tensor]:
    """A free run for each scale."""
    return {scale: from_zero(make, scale) for scale in SCALES}


def decoupled_decay(seen: Responses) -> float | None:
    """By which part of themselves parameters shrink a step without gradients, the same at each step; 0 if they stay.

    None if what they do is no such shrinking, as where decay goes through a normalised gradient.
    """
    shrinking = -seen.decay / seen.start
    if not seen.decay.any():
        return 0.0
    return float(shrinking.mean()) if _same(shrinking, shrinking.mean().expand_as(shrinking)) else None
