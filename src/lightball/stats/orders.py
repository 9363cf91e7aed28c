"""Orders of convergence: the largest error over time with its standard error, and a power law through errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from lightball.errors import InputError

CLEARLY = 4.0
"""Errors below so many of their standard errors are limited by noise, and no fit uses them."""
SLOWEST = 0.96
"""Local orders whose steps shrink by less than 4 % each are not extrapolated."""

LEAST_GROUPS = 40
"""Groups of trajectories below which a largest error has no interval of 95 %."""
Z95 = float(ndtri(0.975))
"""Standard errors to either side of a 95 % interval: 1.96."""


@dataclass(frozen=True)
class Slope:
    """An order r of error ∝ η^r, with its 95 % interval."""

    order: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class OrderFit:
    """What errors at several learning rates say about the order; see :func:`fit_order`.

    ``used`` marks, in the order in which they were given, the points that are clearly above their noise; ``fit`` is
    the straight line through them on logarithmic axes, ``local`` the line through the two smallest rates among them.
    ``limit`` is where the local orders of exact errors tend to. None where there are too few points.
    """

    used: tuple[bool, ...]
    fit: Slope | None
    local: Slope | None
    limit: float | None


def largest_error(
    groups: ArrayLike, sizes: ArrayLike | None = None, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """max over k of |mean difference at k|, and a standard error that accounts for the maximum.

    ``groups`` are means of a difference over disjoint groups of trajectories, shape (group, record), ``sizes`` their
    numbers of trajectories. The mean d̂ is resampled over groups (bootstrap with Gaussian multipliers); the standard
    error is the 95 % quantile of max_k |d̂*_k − d̂_k|, over 1.96, times the quantile of t with n − 1 degrees of freedom
    over the Gaussian one, since n groups estimate their own scatter. Since |max|d̂| − max|d|| ≤ max|d̂ − d|, the true
    maximum is within 1.96 standard errors with a probability of 95 % or more, approximately, for group means near
    Gaussian: wherever it lies, however times correlate, and also where there is nothing but noise. Conservative where
    one time dominates; too small for few groups of few trajectories with skewed noise. What is not finite has an
    infinite error and standard error.

    Cost: num_resamples × groups × records.

    Raises:
        InputError: fewer than 40 groups, or shapes that do not fit.
    """
    means = np.asarray(groups, dtype=np.float64)
    if means.ndim != 2 or len(means) < LEAST_GROUPS or means.shape[1] == 0:
        raise InputError(
            f"the groups have shape {means.shape}; required is (group, record) with at least {LEAST_GROUPS} groups: "
            "simulate more trajectories, or divide them into more groups"
        )
    weights = np.ones(len(means)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if weights.shape != (len(means),) or not (weights > 0).all():
        raise InputError(
            f"the sizes have shape {weights.shape}; required is a number > 0 for each of {len(means)} groups"
        )
    if not np.isfinite(means).all():
        return math.inf, math.inf
    average = weights @ means / weights.sum()
    multipliers = np.random.default_rng(seed).standard_normal((num_resamples, len(means)))
    resampled = (multipliers * weights) @ (means - average) / weights.sum()
    quantile = float(np.quantile(np.abs(resampled).max(axis=1), 0.95))
    unbiased = math.sqrt(len(means) / (len(means) - 1))  # deviations from the average are smaller than from the truth
    student = -float(stdtrit(len(means) - 1, 0.025)) / Z95
    return float(np.abs(average).max()), student * unbiased * quantile / Z95


def fit_order(
    etas: Sequence[float], errors: Sequence[float], standard_errors: Sequence[float] | None = None
) -> OrderFit:
    """The order of errors ∝ η^r by a weighted straight line through (log η, log error).

    Points with error < 4 standard errors, or not finite, or zero, are left out and marked. Weights are
    (error/standard error)², equal for exact errors (no standard errors, or all zero). The interval of the fit is the
    wider of what the noise explains (1.96 standard errors of the slope) and what the scatter about the line shows
    (t with n − 2 degrees of freedom), so that a line through bent points has an interval too.

    Exact errors leave no noise in the local order: its interval reaches from it to beyond the limit that the last
    three local orders extrapolate to (Aitken's Δ²), by as much as that limit differs from the one before, but not
    by more than the way to it. Where they tend nowhere it is as wide as their last change, to both sides.

    Raises:
        InputError: different numbers of rates and errors, rates that are equal or not positive, negative errors, or
            standard errors that are zero for some points only.
    """
    rates, values, noise = _checked(etas, errors, standard_errors)
    exact = not noise.any()
    with np.errstate(invalid="ignore"):
        used = np.isfinite(values) & np.isfinite(noise) & (values > 0) & (values >= CLEARLY * noise)
    order = [i for i in np.argsort(-rates) if used[i]]
    x, y, relative = np.log(rates[order]), np.log(values[order]), noise[order] / values[order]
    fit = _line(x, y, relative) if len(order) >= 2 else None
    local = _line(x[-2:], y[-2:], relative[-2:]) if len(order) >= 2 else None
    marks = tuple(bool(u) for u in used)
    if not exact or local is None:
        return OrderFit(marks, fit, local, None)
    local_orders = np.diff(y) / np.diff(x)
    limit = _limit(local_orders)
    return OrderFit(marks, fit, Slope(local.order, _span(local_orders, limit)), limit)


def _span(local_orders: NDArray[np.float64], limit: float | None) -> tuple[float, float]:
    """From the last local order to beyond their limit; as far to both sides as they moved last where there is none."""
    last = float(local_orders[-1])
    if limit is None:
        moved = abs(last - float(local_orders[-2])) if len(local_orders) > 1 else 0.0
        return last - moved, last + moved
    before = _limit(local_orders[:-1])
    reach = abs(limit - last)
    doubt = reach if before is None else min(reach, abs(limit - before))
    return min(last, limit - doubt), max(last, limit + doubt)


def _line(x: NDArray[np.float64], y: NDArray[np.float64], relative: NDArray[np.float64]) -> Slope:
    """The weighted line; ``relative`` standard errors are those of y."""
    exact = not relative.any()
    weights = np.ones_like(x) if exact else 1 / relative**2
    centred = x - np.average(x, weights=weights)
    information = float(weights @ centred**2)
    slope = float(weights @ (centred * y)) / information
    half = 0.0 if exact else Z95 / math.sqrt(information)
    if len(x) > 2:
        residuals = y - np.average(y, weights=weights) - slope * centred
        scatter = math.sqrt(float(weights @ residuals**2) / (len(x) - 2) / information)
        half = max(half, -float(stdtrit(len(x) - 2, 0.025)) * scatter)
    return Slope(slope, (slope - half, slope + half))


def _limit(local_orders: NDArray[np.float64]) -> float | None:
    """Where the last three lead geometrically (Aitken's Δ²); None if their steps hardly shrink, or change sides."""
    if len(local_orders) < 3:
        return None
    before, last = np.diff(local_orders[-3:])
    if last == 0:
        return float(local_orders[-1])
    ratio = last / before if before else math.inf
    return float(local_orders[-1] + last * ratio / (1 - ratio)) if 0 < ratio < SLOWEST else None


def _checked(
    etas: Sequence[float], errors: Sequence[float], standard_errors: Sequence[float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    given = [etas, errors, [0.0] * len(errors) if standard_errors is None else standard_errors]
    rates, values, noise = (np.asarray(numbers, dtype=np.float64) for numbers in given)
    if not rates.shape == values.shape == noise.shape == (len(rates),):
        raise InputError(
            f"there are {rates.size} rates, {values.size} errors and {noise.size} standard errors; one of each is "
            "required for every point"
        )
    if not (np.isfinite(rates) & (rates > 0)).all() or len(set(rates)) < len(rates):
        raise InputError(f"the rates are {rates.tolist()}; required are different numbers > 0")
    if (values < 0).any() or (noise < 0).any():
        raise InputError("an error or standard error is negative; required are numbers ≥ 0: give |error|")
    if (noise == 0).any() and (noise > 0).any():
        raise InputError("some standard errors are 0 and some are not; required is all or none: fit exact points apart")
    return rates, values, noise
