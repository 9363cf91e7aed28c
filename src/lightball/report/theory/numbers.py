"""Numbers of the theory as text and as bars: means with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightball.report.figures.series import Mark, Series
from lightball.stats.orders import Z95
from lightball.theory.as_json import finite

_MOST_DECIMALS = 6


def with_interval(mean: float, half: float) -> str:
    """A mean and the half of its 95 % interval, to two digits of it: 0.2486 ± 0.0013.

    An interval that is nothing but rounding is 0; what is not finite diverges.
    """
    if not (math.isfinite(mean) and math.isfinite(half)):
        return "diverges"
    if half <= 1e-6 * abs(mean):
        text = f"{mean:.6g} ± 0"
    else:
        decimals = max(0, 1 - math.floor(math.log10(half))) if half else 0
        plain = decimals <= _MOST_DECIMALS and abs(mean) < 1e6
        text = f"{mean:.{decimals}f} ± {half:.{decimals}f}" if plain else f"{mean:.3g} ± {half:.2g}"
    return text.replace("-", "−")


def told_apart(value: float) -> str:
    """A number with as many digits as it takes: two values of a setting must not share a name."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def with_bars(
    name: str,
    x: Sequence[float],
    means: Sequence[float],
    standard_errors: Sequence[float],
    *,
    colour: str | int = "theory",
    mark: Mark = "points",
    hollow: Sequence[bool] = (),
) -> Series:
    """Simulated values with their 95 % intervals, mean ± 1.96 standard errors; what is not finite is not drawn."""
    pairs = list(zip(means, standard_errors, strict=True))
    return Series(
        name,
        x,
        [finite(mean) for mean in means],
        [finite(mean - Z95 * se) for mean, se in pairs],
        [finite(mean + Z95 * se) for mean, se in pairs],
        colour=colour,
        mark=mark,
        hollow=hollow,
    )
