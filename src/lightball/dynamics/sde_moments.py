"""Exact moments of the SDE limits on quadratics, in the time t = ηk: no sampling.

    first order    dX = −∇L dt + √η σΣ^½ dW
    underdamped    dX = −M dt,   dM = c (−M + ∇L) dt + c √η σΣ^½ dW        where 1 − β = cη

Source: arXiv:2307.15196, §4; the second is SGDM's limit where its memory lasts O(1/η) steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightball.dynamics.modes import LinearMoments, Modes, linear_moments, modes_of
from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64

    from lightball.oracles import Quadratic


def sde_moments(problem: Quadratic, effective_lr: float, times: Sequence[float]) -> LinearMoments:
    """Mean and covariance of X of the first-order SDE at ``times``.

    Exact to rounding, by matrix exponentials. Raises `InputError` for a rate or times that are negative.
    """
    modes = modes_of(problem)
    drift = -modes.curvature[:, None, None]
    return _linear_sde(modes, drift, torch.ones(1, dtype=torch.float64), effective_lr, times)


def underdamped_sde_moments(
    problem: Quadratic, effective_lr: float, damping: float, times: Sequence[float]
) -> LinearMoments:
    """Mean and covariance of (X, M) of the underdamped SDE with c = ``damping``, from M = 0.

    Exact to rounding, by matrix exponentials. Raises `InputError` for a rate, damping or times that are negative.
    """
    modes = modes_of(problem)
    _require_positive("damping", damping)
    drift = torch.zeros(modes.dim, 2, 2, dtype=torch.float64)
    drift[:, 0, 1], drift[:, 1, 0], drift[:, 1, 1] = -1.0, damping * modes.curvature, -damping
    return _linear_sde(modes, drift, torch.tensor([0.0, damping], dtype=torch.float64), effective_lr, times)


def _linear_sde(
    modes: Modes,
    drift: Float64[Tensor, "mode part part"],
    unit: Float64[Tensor, "part"],
    effective_lr: float,
    times: Sequence[float],
) -> LinearMoments:
    """dz = B z dt + √η e dV for each mode, with Cov dV of the pairs from the noise of the problem.

    vec C of a pair solves C' = (Bᵢ ⊕ Bⱼ) C + η Cov(vᵢ, vⱼ) e eᵀ from zero: the last column of an exponential that
    carries the constant as one more coordinate (Van Loan 1978, doi:10.1109/TAC.1978.1101743).
    """
    _require_positive("effective_lr", effective_lr)
    at = torch.tensor(np.asarray(times, dtype=np.float64))
    if at.ndim != 1 or not bool((at >= 0).all()):
        raise InputError(f"times are {list(times)}; required is a list of times t ≥ 0")
    parts = drift.shape[-1]
    start = torch.zeros(modes.dim, parts, 1, dtype=torch.float64)
    start[:, 0, 0] = modes.start
    means = (torch.matrix_exp(at[:, None, None, None] * drift) @ start)[..., 0]

    eye = torch.eye(parts, dtype=torch.float64)
    left, right = drift[modes.first], drift[modes.second]
    both = torch.einsum("nab,cd->nacbd", left, eye) + torch.einsum("ab,ncd->nacbd", eye, right)
    square = parts * parts
    generator = torch.zeros(len(modes.noise), square + 1, square + 1, dtype=torch.float64)
    generator[:, :square, :square] = both.reshape(-1, square, square)
    generator[:, :square, square] = effective_lr * modes.noise[:, None] * torch.outer(unit, unit).flatten()
    grown = torch.matrix_exp(at[:, None, None, None] * generator)[..., :square, square]
    return linear_moments(at.numpy(), modes, means, grown.reshape(*grown.shape[:-1], parts, parts))


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value:g}; required is a finite number > 0")
