"""Orders, errors and rates as short text."""

from __future__ import annotations

import math

from lightball.report.figures.axes import SUPERSCRIPTS
from lightball.stats import Slope


def eta_text(eta: float) -> str:
    """A rate as a power of two where it is one: 2⁻¹²."""
    mantissa, exponent = math.frexp(eta)
    return f"2{str(exponent - 1).translate(SUPERSCRIPTS)}" if mantissa == 0.5 else f"{eta:.4g}"


def order_text(slope: Slope | None) -> str:
    """An order with two decimals."""
    return "–" if slope is None else _signed(slope.order)


def order_with_interval(slope: Slope | None) -> str:
    """An order and its interval: 0.98 (0.97, 1.01)."""
    return "–" if slope is None else f"{_signed(slope.order)} ({_signed(slope.ci95[0])}, {_signed(slope.ci95[1])})"


def error_text(value: float) -> str:
    """An error with three digits, ∞ where it is infinite."""
    return f"{value:.3g}" if math.isfinite(value) else "∞"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # + 0.0: a rounded −0 is 0
