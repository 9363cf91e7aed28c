"""At which size of gradients a step begins to cut them, and by which norm."""

from __future__ import annotations

import torch
from torch import Tensor

from lightball.optim.auditing.responses import SCALES, Responses
from lightball.optim.auditing.rule import SINGLE
from lightball.optim.auditing.stand_in import StandIn


def threshold(runs: dict[float, Tensor], layout: StandIn, index: int, seen: Responses) -> tuple[float, str]:
    """What a step lets through of the largest gradients, and of what: elements, each parameter's norm, or one of all.

    ``runs`` are those of :func:`runs_from_zero`, ``seen`` the group's responses to small gradients.
    """
    part = layout.slices[index]
    largest = SCALES[-1]
    gain = float(seen.first[0].norm() / seen.impulse.norm())
    passed = runs[largest][0] * largest / gain
    own = passed[part]
    if _alike(own.abs()):
        return float(own.abs().max()), "each element"
    norms = torch.stack([piece.norm() for piece in torch.split(own, [shape.numel() for shape in layout.shapes[index]])])
    if len(norms) > 1 and _alike(norms):
        return float(norms.max()), "each parameter's norm"
    return float(own.norm()), "the norm"


def _alike(values: Tensor) -> bool:
    return bool(values.max() - values.min() <= SINGLE * values.max())
