"""How a step limits large gradients: at which size, and by which norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightball.optim.auditing.responses import LATE, SCALES, Maker, Responses, held
from lightball.optim.auditing.rule import SINGLE
from lightball.optim.auditing.stand_in import StandIn

_LARGEST = SCALES[-1]


@dataclass(frozen=True)
class Passed:
    """What a step lets through of the same large gradient at the first step and at the second, (element,)."""

    gradient: Tensor
    first: Tensor
    second: Tensor


def passed(make: Maker, seen: Responses) -> Passed:
    """Drive a stand-in with a large gradient; ``seen`` are all groups' responses to small ones, which it divides by."""
    moves = _LARGEST * held(make, seen.impulse.expand(2, -1), torch.zeros_like(seen.start), _LARGEST)
    first = moves[0] / seen.first[0]
    second = (moves[1] - seen.first[1] * first) / seen.late[LATE]
    second = torch.where(second.isfinite(), second, first)  # of a rule that only takes the first gradient
    return Passed(seen.impulse, seen.impulse * first, seen.impulse * second)


def limit(found: Passed, layout: StandIn, index: int) -> tuple[float | None, str]:
    """The size at which a group's gradients are cut, None where they are skipped instead, and a note about it."""
    part = layout.slices[index]
    if not found.second[part].any():
        return None, "steps with large gradients are skipped; the rest holds for small ones"
    size, of_what = _judged(found, layout, index)
    change = (found.second - found.first)[part].abs().max() > SINGLE * found.second[part].abs().max()
    history = ", judged by earlier steps too" if change else ""
    return size, f"gradients are limited inside step, {of_what} at {size:.5g}{history}; the rest holds below"


def _judged(found: Passed, layout: StandIn, index: int) -> tuple[float, str]:
    """By the second step, where methods that follow earlier gradients have some."""
    own = found.second[layout.slices[index]]
    if _alike(own.abs()):
        return float(own.abs().max()), "each element"
    norms = [_norms(found.second, layout, k) for k, shapes in enumerate(layout.shapes) if shapes]
    alone = len(norms) == 1
    own_norms = _norms(found.second, layout, index)
    if _alike(own_norms) or _alike(torch.cat(norms)):
        return float(own_norms.max()), "each parameter's norm"
    moving = found.second.isfinite()
    if not alone and _alike((found.second / found.gradient)[moving]):
        return float(found.second[moving].norm()), "the norm of all groups together"
    return float(own.norm()), "the norm" if alone else "the group's norm"


def _norms(values: Tensor, layout: StandIn, index: int) -> Tensor:
    """Of each parameter of a group."""
    sizes = [shape.numel() for shape in layout.shapes[index]]
    return torch.stack([piece.norm() for piece in torch.split(values[layout.slices[index]], sizes)])


def _alike(values: Tensor) -> bool:
    return len(values) > 1 and bool(values.max() - values.min() <= SINGLE * values.max())
