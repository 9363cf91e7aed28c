"""Results as short text, the same in tables on a page and on a terminal."""

from __future__ import annotations

from lightball.stats import Decision
from lightball.studies.result import Arm, Judged

UNKNOWN = "–"


def rate(arm: Arm) -> str:
    """The effective learning rate that was selected for a rule."""
    if arm.effective_lr is None:
        return UNKNOWN
    return f"{arm.effective_lr:.3g}" if arm.effective_lr >= 1e-3 else f"{arm.effective_lr:.1e}"


def score(arm: Arm, measure: Judged) -> str:
    """The mean result of a rule, in 7 characters; an accuracy in %."""
    value = getattr(arm, measure)
    if value is None:
        return UNKNOWN
    return fitted(value, 4, 7) if measure == "train_loss" else f"{fitted(100 * value, 2, 5)} %"


def difference(decision: Decision | None, measure: Judged) -> str:
    """The value of momentum with its interval, in 24 characters; accuracies in points."""
    if decision is None:
        return UNKNOWN
    i = decision.interval
    return f"{signed(i.mean, measure)} ({signed(i.low, measure)}, {signed(i.high, measure)})"


def signed(value: float, measure: Judged) -> str:
    """A difference, or one in percentage points, in 6 characters."""
    if measure == "train_loss":
        return fitted(value, 3, 6, "+")
    return fitted(round(100 * value, 2) + 0.0, 2, 6, "+")  # + 0.0: a rounded −0 is 0


def fitted(value: float, decimals: int, width: int, sign: str = "-") -> str:
    """A number of ``width`` characters: fewer decimals where it is large, an exponent where it would not show."""
    fixed = [f"{value:{sign}.{d}f}" for d in range(decimals, -1, -1)]
    exponents = [f"{value:{sign}.{d}e}" for d in (1, 0)]
    shows = value == 0 or abs(value) >= 0.5 * 10**-decimals
    candidates = [*fixed, *exponents] if shows else [*exponents, fixed[-1]]
    return next((text for text in candidates if len(text) <= width), candidates[-1])


def margins(values: list[float], measure: Judged) -> str:
    """What difference does not matter, over batch sizes."""
    shown = [signed(value, measure).removeprefix("+") for value in (min(values), max(values))]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"


def listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)
