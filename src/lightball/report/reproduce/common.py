"""Words and numbers that the pages of the experiments share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightball.report.numbers import UNKNOWN
from lightball.stats import Decision

_SAID = {
    "no value": "is of no value",
    "helps": "helps",
    "hurts": "hurts",
    "undecided": "may or may not matter",
}


def percent(value: float | None, decimals: int = 1) -> str:
    """A share in per cent, without the sign."""
    return UNKNOWN if value is None else f"{100 * value:.{decimals}f}"


def mean_and_deviation(mean: float | None, deviation: float | None) -> str:
    """Shares in per cent: 78.8 ± 1.2."""
    if mean is None:
        return UNKNOWN
    return percent(mean) if deviation is None else f"{percent(mean)} ± {percent(deviation)}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{round(100 * value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0: a rounded −0 is 0


def points_with_interval(decision: Decision | None) -> str:
    """The value of momentum in points: +0.10 (−0.52, +0.71)."""
    if decision is None:
        return UNKNOWN
    interval = decision.interval
    return f"{points(interval.mean)} ({points(interval.low)}, {points(interval.high)})"


def rate(lr: float | None) -> str:
    """An effective learning rate."""
    return UNKNOWN if lr is None else f"{lr:.3g}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def in_sum(verdicts: Mapping[str, Sequence[str]]) -> str:
    """The verdicts in a sentence, from names by verdict; "" where there are none."""
    said = [f"{words} on {listed(verdicts[verdict])}" for verdict, words in _SAID.items() if verdicts.get(verdict)]
    return f"For test accuracy momentum {'; it '.join(said)}." if said else ""
