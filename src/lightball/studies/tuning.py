"""Choosing a learning rate for each rule, and growing the grid when the choice lies on its edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lightball.stats import mean_and_standard_error
from lightball.studies.runs import Measure, Outcome


@dataclass(frozen=True)
class RateScore:
    """The mean score of one rule at one effective learning rate over the tuning seeds, failed runs included.

    The standard error is over seeds, None for a single one. Both are unknown (NaN, None) where a run crashed and
    nothing tells what it scores.
    """

    effective_lr: float
    mean: float
    failed: int
    runs: int
    standard_error: float | None = None


@dataclass(frozen=True)
class Choice:
    """The selected effective rate (None if some seed failed at every rate) and the tuning scores behind it.

    ``at_edge``: the choice still lies on the edge of a grid that was not allowed to grow further.
    ``without_crashes``: what would be selected if runs that crashed were left out.
    """

    effective_lr: float | None
    at_edge: bool
    scores: tuple[RateScore, ...]
    without_crashes: float | None = None


def rate_scores(outcomes: Iterable[Outcome], measure: Measure) -> tuple[RateScore, ...]:
    """Scores of one rule by increasing rate."""
    by_rate: dict[float, list[Outcome]] = {}
    for outcome in outcomes:
        by_rate.setdefault(outcome.run.effective_lr, []).append(outcome)
    return tuple(_rate_score(rate, by_rate[rate], measure) for rate in sorted(by_rate))


def _rate_score(rate: float, outcomes: Sequence[Outcome], measure: Measure) -> RateScore:
    scores = [o.score(measure) for o in outcomes]
    error = mean_and_standard_error(scores)[1] if len(scores) > 1 and np.isfinite(scores).all() else None
    return RateScore(rate, float(np.mean(scores)), sum(o.failed for o in outcomes), len(outcomes), error)


def select_rate(scores: Sequence[RateScore], tolerance: float, higher_is_better: bool = False) -> float | None:
    """The smallest rate without failures whose mean is within ``tolerance`` of the best such mean.

    The best rate itself often sits on the edge of stability, where single runs scatter; the smallest one that is as
    good for practical purposes does not.
    """
    usable = _usable(scores)
    if not usable:
        return None
    sign = -1.0 if higher_is_better else 1.0
    best = min(sign * s.mean for s in usable)
    return min(s.effective_lr for s in usable if sign * s.mean <= best + tolerance)


def _usable(scores: Sequence[RateScore]) -> list[RateScore]:
    return [s for s in scores if s.failed == 0 and math.isfinite(s.mean)]


def edges(scores: Sequence[RateScore], tolerance: float, higher_is_better: bool = False) -> set[str]:
    """Where the grid ends too early: {"low"}, {"high"}, both or none.

    "low" if the selected rate is the smallest of the grid or every rate failed; "high" if the best mean is at the
    largest, for a better one beyond it could change what is within tolerance.
    """
    selected = select_rate(scores, tolerance, higher_is_better)
    if selected is None:
        return {"low"}
    found = {"low"} if selected == scores[0].effective_lr else set()
    sign = -1.0 if higher_is_better else 1.0
    best = min(_usable(scores), key=lambda s: sign * s.mean)
    if best.effective_lr == scores[-1].effective_lr:
        found.add("high")
    return found


def extend(grid: Sequence[float], edge: str) -> float:
    """The next rate beyond an edge, by the grid's own ratio there (2 if it has a single rate)."""
    if edge == "low":
        ratio = grid[1] / grid[0] if len(grid) > 1 else 2.0
        return float(f"{grid[0] / ratio:.6g}")
    ratio = grid[-1] / grid[-2] if len(grid) > 1 else 2.0
    return float(f"{grid[-1] * ratio:.6g}")
