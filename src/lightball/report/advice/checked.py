"""Forecast and measurement side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightball.report.advice.words import difference
from lightball.report.numbers import UNKNOWN
from lightball.report.page import Badge, Section, Table

if TYPE_CHECKING:
    from lightball.stats import Interval, Verdict
    from lightball.studies.verification import Verification

_CAPTION = (
    "SGD's loss minus SGDM's, with 95 % intervals; for the best tuned forecast, with the range of what it assumes"
)
_AGREES = {True: "yes", False: "no", None: "not decided"}


def checked(verification: Verification) -> Section:
    """What was forecast, what runs gave, and whether they agree."""
    equal, tuned = verification.equal_rates, verification.tuned
    forecast = equal.forecast
    rows: list[tuple[str | Badge, ...]] = [
        (
            "at your setting",
            _badge(forecast.verdict) if forecast.valid else "not valid",
            difference(forecast.difference, forecast.low, forecast.high) if forecast.valid else UNKNOWN,
            _badge(equal.measured_verdict),
            _measured(equal.measured),
            _AGREES[equal.agrees],
        )
    ]
    if tuned is not None:
        best, decision = tuned.predicted, tuned.measured
        rows.append(
            (
                "best tuned",
                _badge(best.verdict) if best.valid else "not valid",
                difference(best.difference, best.low, best.high) if best.valid else UNKNOWN,
                UNKNOWN if decision is None else _badge(decision.verdict),
                _measured(None if decision is None else decision.interval),
                _AGREES[tuned.agrees],
            )
        )
    head = ("value of momentum", "forecast", "difference", "measured", "difference", "agree")
    table = Table(head, tuple(rows), _CAPTION, numeric=(2, 4))
    return Section("Forecast and measurement", verification.sentences, (table,))


def _badge(verdict: Verdict) -> Badge:
    return Badge(str(verdict), str(verdict))


def _measured(interval: Interval | None) -> str:
    return UNKNOWN if interval is None else difference(interval.mean, interval.low, interval.high)
