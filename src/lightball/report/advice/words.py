"""Numbers of an advice as short text."""

from __future__ import annotations

import math

from lightball.report.figures.data import signed
from lightball.report.numbers import UNKNOWN

_UNITS = ("B", "kB", "MB", "GB", "TB")


def number(value: float | None) -> str:
    """To three digits; a dash for none."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def difference(value: float | None, low: float | None, high: float | None) -> str:
    """A value of momentum with its 95 % interval, where it has one: +0.0021 (+0.0015 to +0.0027)."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return f"{signed(value)} (interval not known)"
    return f"{signed(value)} ({signed(low)} to {signed(high)})"


def size(num_bytes: float) -> str:
    """Memory in decimal units: 38.4 kB."""
    power = min(len(_UNITS) - 1, max(0, math.floor(math.log10(num_bytes) / 3))) if num_bytes >= 1 else 0
    return f"{num_bytes / 1000**power:.3g} {_UNITS[power]}"


def sentence(text: str) -> str:
    """With a capital letter, unless a symbol begins it, and a full stop."""
    begin = text[:1].upper() if text[:1].isascii() else text[:1]
    return begin + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""
