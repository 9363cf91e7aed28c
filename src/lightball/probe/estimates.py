"""Estimates with 95 % intervals that stay honest where a few examples carry most of the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from jaxtyping import Float64

Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Args:
        value: the estimate; inf for a ratio whose denominator is estimated at 0 or below.
        low: lower end, -inf where there is none.
        high: upper end, inf where there is none.
        n: how many independent numbers it comes from; 0 where it is known exactly.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def determined(self) -> bool:
        """Whether the data bound it on both sides."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        """``4.1 (3.2 to 5.6)``, or ``not determined (at least 120)``."""
        if self.determined:
            return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"
        return "not determined" + (f" (at least {self.low:.3g})" if math.isfinite(self.low) else "")


def mean_estimate(
    values: Float64[Array, "n"], *, nonnegative: bool = False, sampled: float = 0.0, fitted: int = 0
) -> Estimate:
    """The mean of independent values, with an interval that holds for skew and heavy-tailed ones.

    The interval is the union of Student's and of the one from Hall's cubic transformation
    T ↦ T + aT²/3 + a²T³/27 + a/6, a = skewness/√n, which makes the studentised mean of skew values symmetric. Student's
    alone is too low on top: it sees a heavy tail only where it happened to be drawn.

    Args:
        values: one number each, independent; two at least for an interval.
        nonnegative: the mean cannot be negative, so that the interval ends at 0.
        fitted: how many parameters beside the mean the values were fitted with, each a degree of freedom less.
        sampled: the share of a finite population that was drawn, without replacement; at 1 the mean is exact.

    Source: P. Hall (1992), *On the removal of skewness by transformation*, J. R. Statist. Soc. B 54(1).
    """
    n, mean = len(values), float(np.mean(values))
    if sampled >= 1:
        return Estimate(mean, mean, mean, n)
    degrees = n - 1 - fitted
    if degrees < 1:
        return Estimate(mean, 0.0 if nonnegative else -math.inf, math.inf, n)
    deviations = np.asarray(values, dtype=float) - mean
    spread = float(np.sqrt(deviations @ deviations / degrees))
    if spread == 0:
        return Estimate(mean, mean, mean, n)
    t = student(degrees)
    a = _skewness(deviations) / math.sqrt(n)
    scale = spread / math.sqrt(n) * math.sqrt(1 - sampled)
    low = mean - scale * max(t, _hall(a, t))
    high = mean - scale * min(-t, _hall(a, -t))
    return Estimate(mean, max(low, 0.0) if nonnegative else low, high, n)


def ratio_estimate(numerator: Estimate, denominator: Estimate) -> Estimate:
    """The ratio of two means, never the mean of ratios, with an interval from theirs.

    The distances to the ends add in squares on the logarithmic scale. Where the denominator's interval reaches down to
    0, nothing bounds the ratio above; then ``high`` is inf.

    Source: G. Y. Zou, A. Donner (2008), *Construction of confidence limits about effect measures*, Stat. Med. 27.
    """
    n = min(numerator.n, denominator.n) or max(numerator.n, denominator.n)
    value = numerator.value / denominator.value if denominator.value > 0 else math.inf
    if denominator.high <= 0:
        return Estimate(math.inf, -math.inf, math.inf, n)
    if numerator.low <= 0 or denominator.low <= 0:  # the ends of the one over those of the other
        low = numerator.low / (denominator.high if numerator.low >= 0 else max(denominator.low, 0) or math.nan)
        high = numerator.high / (denominator.low if numerator.high >= 0 else denominator.high)
        unbounded = denominator.low <= 0
        return Estimate(value, -math.inf if math.isnan(low) else low, math.inf if unbounded else high, n)
    down = math.hypot(_log(numerator.value / numerator.low), _log(denominator.high / denominator.value))
    up = math.hypot(_log(numerator.high / numerator.value), _log(denominator.value / denominator.low))
    return Estimate(value, value * math.exp(-down), value * math.exp(up) if math.isfinite(up) else math.inf, n)


def difference_estimate(
    value: float, standard_error: float, degrees: int, *, less: Estimate | None = None, times: float = 0.0
) -> Estimate:
    """The interval of ``value`` = X − times · ``less``, X known to a standard error; distances to the ends add."""
    t = student(max(degrees, 1))
    down, up = (0.0, 0.0) if less is None or times == 0 else (less.high - less.value, less.value - less.low)
    return Estimate(
        value,
        value - math.hypot(t * standard_error, times * down),
        value + math.hypot(t * standard_error, times * up),
        degrees if standard_error > 0 else 0,
    )


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return -float(stdtrit(degrees, 0.025))


def _hall(a: float, t: float) -> float:
    """The inverse of Hall's transformation: the quantile of the studentised mean where Student's is t."""
    if abs(a) < 1e-6:
        return t
    return (3 / a) * (float(np.cbrt(1 + a * (t - a / 6))) - 1)


def _skewness(deviations: Float64[Array, "n"]) -> float:
    """The sample skewness with the usual small-sample factor; 0 for two values, which have none."""
    n = len(deviations)
    if n < 3:
        return 0.0
    variance = float(np.mean(deviations**2))
    return math.sqrt(n * (n - 1)) / (n - 2) * float(np.mean(deviations**3)) / math.sqrt(variance) ** 3


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio < math.inf else math.inf
