"""Forecast and measurement side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightball.report.advice.words import difference
from lightball.report.numbers import UNKNOWN
from lightball.report.page import Badge, Section, Table
from lightball.stats import Verdict

if TYPE_CHECKING:
    from lightball.forecast.advice import Advice
    from lightball.stats import Interval
    from lightball.studies.verification import Verification

_CAPTION = (
    "SGD's loss minus SGDM's, with 95 % intervals; for the best tuned forecast, with the range of what it assumes"
)
_AGREES = {True: "yes", False: "no", None: "not decided"}


def answer(advice: Advice, verification: Verification | None) -> str:
    """What to do: by tuned runs where they were measured, else by the forecast."""
    tuned = None if verification is None else verification.tuned
    decision = None if tuned is None else tuned.measured
    said = {
        Verdict.HELPS: "Keep momentum: measured, with both rules tuned, it helps",
        Verdict.NO_VALUE: "Drop momentum: measured, with both rules tuned, it has no value",
        Verdict.HURTS: "Drop momentum: measured, with both rules tuned, SGD ends lower",
    }
    if decision is None or decision.verdict not in said:
        return advice.recommendation
    return f"{said[decision.verdict]} at batch size {advice.batch_size}."


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
