"""Exact mean and covariance of SGD with and without momentum on quadratics: no sampling.

A step is linear there, z' = A z + b v for each mode z = (x, m) with A and b from `rules.transition`, so that

    E z' = A E z          Cov(zᵢ', zⱼ') = Aᵢ Cov(zᵢ, zⱼ) Aⱼᵀ + Cov(vᵢ, vⱼ) bᵢ bⱼᵀ

whatever the distribution of the noise v. What diverges is infinite and marked as such, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightball.dynamics.modes import LinearMoments, Modes, linear_moments, modes_of
from lightball.errors import InputError
from lightball.rules import Transition, canonical, kernel, transition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Float64
    from numpy.typing import ArrayLike

    from lightball.oracles import Quadratic

_BYTES_OF_RECORDS = 2**32
_NUMBERS_IN_MEMORY = 2**22  # transitions that are computed at once


def exact_moments(
    problem: Quadratic,
    effective_lr: ArrayLike,
    momentum: ArrayLike = 0.0,
    *,
    num_steps: int,
    record_at: Sequence[int] | None = None,
    noise_scale: ArrayLike = 1.0,
) -> LinearMoments:
    """The moments of m' = β m + (1 − β) g, x' = x − η m' on a quadratic, from its start and m₀ = 0.

    ``effective_lr`` η and ``momentum`` β broadcast to (*case, step): a number, (num_steps,), (case, 1) or
    (case, num_steps). ``noise_scale`` (*case) multiplies the noise covariance. ``record_at`` are steps, 0 the
    start; default all. Exact to float64 rounding. Cost: some 20 µs a step for small problems, whatever the number of
    cases; d(d+1)/2 products of 2×2 matrices a step for noise that is not diagonal in the basis of the Hessian.

    Raises:
        InputError: rates or momenta out of range, shapes that do not fit, or more records than memory should hold.
    """
    modes = modes_of(problem)
    rates, momenta = _schedules(effective_lr, momentum, num_steps)
    case = rates.shape[:-1]
    scale = _scale(noise_scale, case)
    _require_memory(num_steps + 1 if record_at is None else len(record_at), modes, scale)
    steps = _recorded(record_at, num_steps)
    places = {step: place for place, step in enumerate(steps)}

    mean = torch.zeros(*case, modes.dim, 2, 1, dtype=torch.float64)
    mean[..., 0, 0] = modes.start
    covariance = torch.zeros(*case, len(modes.noise), 2, 2, dtype=torch.float64)
    means, covariances = mean.new_empty(len(steps), *mean.shape), mean.new_empty(len(steps), *covariance.shape)
    if 0 in places:
        means[0], covariances[0] = mean, covariance
    for k, (matrix, left, right, noise) in enumerate(_steps(modes, rates, momenta, scale, num_steps), start=1):
        mean, covariance = matrix @ mean, left @ covariance @ right + noise
        if k in places:
            means[places[k]], covariances[places[k]] = mean, covariance
    return linear_moments(
        np.array(steps, dtype=np.float64), modes, means[..., 0].movedim(0, -3), covariances.movedim(0, -4)
    )


def stationary_covariance(
    problem: Quadratic, effective_lr: ArrayLike, momentum: ArrayLike = 0.0, *, noise_scale: ArrayLike = 1.0
) -> Float64[Tensor, "*case all all"]:
    """Cov (x, m) after so long that it no longer changes, in closed form: for each pair of modes the solution of

        C = Aᵢ C Aⱼᵀ + Cov(vᵢ, vⱼ) bᵢ bⱼᵀ

    Infinite in all places where a mode with noise is not stable (`is_stable`). For one mode with σ²Σ = s the variance
    of x is η s / (h (2 − ηh (1 − β)/(1 + β))). Cost: a 4×4 system for each pair of modes with correlated noise.

    Raises:
        InputError: rates or momenta out of range.
    """
    modes = modes_of(problem)
    rates, momenta = _schedules(effective_lr, momentum, None)
    one = _transition(modes, rates, momenta)
    left, right = one.matrix[..., modes.first, :, :], one.matrix[..., modes.second, :, :]
    both = torch.einsum("...ab,...cd->...acbd", left, right).flatten(-2).flatten(-3, -2)
    radius, eye = _radius(one.matrix), torch.eye(4, dtype=torch.float64)
    stable = (radius[..., modes.first] * radius[..., modes.second]) < 1
    system = torch.where(stable[..., None, None], eye - both, eye)
    noise = _noise(modes, one.noise, _scale(noise_scale, rates.shape))
    solved = torch.linalg.solve(system, noise.flatten(-2)[..., None])[..., 0].unflatten(-1, (2, 2))
    covariance = modes.covariance(solved)
    return torch.where(stable.all(dim=-1)[..., None, None], covariance, torch.inf)


def spectral_radius(
    curvature: ArrayLike, effective_lr: ArrayLike, momentum: ArrayLike = 0.0
) -> Float64[np.ndarray, "*case"]:
    """The factor by which a step stretches (x, m) in the long run: max |λ| of the transition; arguments broadcast."""
    values = (np.asarray(value, dtype=np.float64) for value in (curvature, effective_lr, momentum))
    h, rates, momenta = (torch.tensor(value) for value in np.broadcast_arrays(*values))
    kernel.validate(canonical(rates, momenta))
    result: np.ndarray = _radius(transition(canonical(rates, momenta), h).matrix).numpy()
    return result


def is_stable(curvature: ArrayLike, effective_lr: ArrayLike, momentum: ArrayLike = 0.0) -> Bool[np.ndarray, "*case"]:
    """Whether x and m go to zero without noise: ηh < 2(1 + β)/(1 − β) and ηh > 0."""
    return spectral_radius(curvature, effective_lr, momentum) < 1


def _steps(
    modes: Modes, rates: Tensor, momenta: Tensor, scale: Tensor, num_steps: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each step A, and for the pairs Aᵢ, Aⱼᵀ and the noise; computed for many steps at once, or once for all."""
    changing = rates.shape[-1]
    numbers = 4 * scale.numel() * (modes.dim + 3 * len(modes.noise))
    block = max(1, min(changing, _NUMBERS_IN_MEMORY // max(1, numbers)))
    for begin in range(0, changing, block):
        some = slice(begin, begin + block)
        one = _transition(modes, rates[..., some].movedim(-1, 0), momenta[..., some].movedim(-1, 0))
        left, right = one.matrix[..., modes.first, :, :], one.matrix[..., modes.second, :, :].mT
        noise = _noise(modes, one.noise, scale)
        if changing == 1:
            yield from ((one.matrix[0], left[0], right[0], noise[0]) for _ in range(num_steps))
        else:
            yield from zip(one.matrix, left, right, noise, strict=True)


def _transition(modes: Modes, rates: Tensor, momenta: Tensor) -> Transition:
    """(*replica, mode, 2, 2) for rates of shape (*replica)."""
    return transition(canonical(rates, momenta), modes.curvature.expand(*(1,) * rates.ndim, -1))


def _noise(modes: Modes, unit: Float64[Tensor, "*case mode 2"], scale: Tensor) -> Float64[Tensor, "*case pair 2 2"]:
    """What a step's noise adds to the covariance of each pair."""
    left, right = unit[..., modes.first, :, None], unit[..., modes.second, None, :]
    return (scale[..., None] * modes.noise)[..., None, None] * left * right


def _radius(matrix: Float64[Tensor, "*case 2 2"]) -> Float64[Tensor, "*case"]:
    eigenvalues: Tensor = torch.linalg.eigvals(matrix)
    return eigenvalues.abs().amax(dim=-1)


def _schedules(effective_lr: ArrayLike, momentum: ArrayLike, num_steps: int | None) -> tuple[Tensor, Tensor]:
    """Checked and of one shape, (*case), or (*case, step) where there are steps, with one step for constant values."""
    values = [np.asarray(value, dtype=np.float64) for value in (effective_lr, momentum)]
    if num_steps is not None:
        values = [np.atleast_1d(value) for value in values]
        wrong = [value.shape for value in values if value.shape[-1] not in (1, num_steps)]
        if wrong:
            raise InputError(
                f"a schedule has shape {wrong[0]}; required is a last axis with one value for each of the {num_steps} "
                "steps, or of length 1: give (case, 1) for values that differ between cases only"
            )
    try:
        rates, momenta = (torch.tensor(value) for value in np.broadcast_arrays(*values))
    except ValueError:
        raise InputError(
            f"effective_lr has shape {values[0].shape} and momentum {values[1].shape}; required are shapes that "
            "broadcast: give both the same cases"
        ) from None
    kernel.validate(canonical(rates, momenta))
    return rates, momenta


def _scale(noise_scale: ArrayLike, case: torch.Size) -> Float64[Tensor, "*case"]:
    scale = np.asarray(noise_scale, dtype=np.float64)
    if not (np.isfinite(scale) & (scale >= 0)).all():
        raise InputError(f"noise_scale is {noise_scale!r}; required are finite numbers ≥ 0")
    try:
        return torch.tensor(np.broadcast_to(scale, case))
    except ValueError:
        raise InputError(
            f"noise_scale has shape {scale.shape}, but the cases have shape {tuple(case)}: give one number for all or "
            "one for each case"
        ) from None


def _require_memory(num_records: int, modes: Modes, scale: Tensor) -> None:
    needed = 8 * num_records * scale.numel() * (2 * modes.dim + 4 * len(modes.noise))
    if needed > _BYTES_OF_RECORDS:
        raise InputError(
            f"the moments of {num_records:,} records take {needed / 2**30:.3g} GiB; required are at most "
            f"{_BYTES_OF_RECORDS / 2**30:g}: record fewer steps (record_at), or take larger learning rates"
        )


def _recorded(record_at: Sequence[int] | None, num_steps: int) -> list[int]:
    steps = list(range(num_steps + 1)) if record_at is None else sorted({int(step) for step in record_at})
    if not steps or steps[0] < 0 or steps[-1] > num_steps:
        raise InputError(
            f"record_at spans {steps[:1]} to {steps[-1:]}; required are steps between 0 and num_steps = {num_steps}"
        )
    return steps
