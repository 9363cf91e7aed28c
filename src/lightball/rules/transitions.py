"""The update rule on a quadratic, where it is linear: a 2×2 matrix for each curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.rules import kernel

if TYPE_CHECKING:
    from jaxtyping import Float64


@dataclass(frozen=True)
class Transition:
    """z' = matrix z + noise · v for z = (x, m), with m the buffer and g = h x + v the gradient; float64."""

    matrix: Float64[Tensor, "*batch 2 2"]
    noise: Float64[Tensor, "*batch 2"]


def transition(hyper: kernel.Hyperparameters, curvature: float | Tensor) -> Transition:
    """What one `kernel.step` does to (x, m) at curvature h, found by applying it to unit x, m and v.

    Shapes: hyperparameters are numbers or (*replica); curvature is a number or (*replica, *dims), where an
    axis may have length 1; the results are (*replica, *dims, 2, 2) and (*replica, *dims, 2).
    A buffer is kept at momentum 0 too, where m' is the gradient. Error: float64 rounding. Cost: one step of
    3 coordinates for each curvature. Source: the rule of arXiv:2307.15196, §2, on L = h x²/2.
    """
    h = torch.as_tensor(curvature, dtype=torch.float64)
    replica_axes = max(value.ndim if isinstance(value, Tensor) else 0 for value in vars(hyper).values())
    h = h.reshape((1,) * (replica_axes - h.ndim) + h.shape)
    x, m, v = torch.eye(3, dtype=torch.float64, device=h.device).expand(*h.shape, 3, 3).unbind(-2)
    g = h[..., None] * x + v
    x, state = kernel.step(x, g, {"momentum_buffer": m}, _with_tensor_momentum(hyper, h))
    rows = torch.stack((x, state["momentum_buffer"].expand_as(x)), dim=-2)
    return Transition(matrix=rows[..., :2], noise=rows[..., 2])


def _with_tensor_momentum(hyper: kernel.Hyperparameters, h: Tensor) -> kernel.Hyperparameters:
    """Momentum as a tensor, so that 0 replaces the buffer by the gradient instead of leaving it untouched."""
    momentum = torch.as_tensor(hyper.momentum, dtype=torch.float64, device=h.device)
    return kernel.Hyperparameters(hyper.lr, momentum, hyper.dampening, hyper.weight_decay, hyper.nesterov)
