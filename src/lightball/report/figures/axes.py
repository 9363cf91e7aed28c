"""Number axes: domain, ticks and labels, chosen from the data so that ticks are few, round and unambiguous."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Literal

import altair as alt

MOST_TICKS = 7
PADDING = 0.04  # of the axis, beyond the smallest and the largest value
NARROW = 1e-6  # of a value: a range that is no range, since values have five digits
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Title = str | tuple[str, ...]
Values = Iterable[float | None]


@dataclass(frozen=True)
class NumberAxis:
    """A title, the scale of numbers and its ticks; ``constant`` is where a symlog scale turns logarithmic.

    A title of several strings has as many lines.
    """

    title: Title
    kind: Literal["linear", "log", "symlog"]
    low: float
    high: float
    ticks: tuple[float, ...]
    constant: float = 1.0

    def x(self, column: str) -> alt.X:
        """A column of numbers along this axis, horizontally."""
        return alt.X(f"{column}:Q", scale=self.scale(), axis=self.axis())

    def y(self, column: str) -> alt.Y:
        """A column of numbers along this axis, vertically."""
        return alt.Y(f"{column}:Q", scale=self.scale(), axis=self.axis())

    def scale(self) -> alt.Scale:
        """As Vega-Lite's scale."""
        scale = alt.Scale(type=self.kind, domain=[self.low, self.high], nice=False)
        if self.kind == "linear":
            scale["zero"] = False
        if self.kind == "symlog":
            scale["constant"] = self.constant
        return scale

    def axis(self) -> alt.Axis:
        """As Vega-Lite's axis."""
        title = self.title if isinstance(self.title, str) else list(self.title)
        labels = lookup(self.ticks, texts(self.ticks))
        thinned: Literal["parity", "greedy"] = "parity" if self.kind == "log" else "greedy"
        return alt.Axis(title=title, values=list(self.ticks), labelExpr=labels, labelOverlap=thinned)


def lookup(values: Sequence[float], labels: Sequence[str]) -> str:
    """A Vega expression that gives a tick its label."""
    return f"{json.dumps(list(labels), ensure_ascii=False)}[indexof({json.dumps(list(values))}, datum.value)]"


def linear(title: Title, values: Values, *, most: int = MOST_TICKS, padding: float = PADDING) -> NumberAxis:
    """A linear axis over the values; ``padding`` is a share of their range."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low <= NARROW * max(-low, high):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    low, high = low - padding * (high - low), high + padding * (high - low)
    return NumberAxis(title, "linear", low, high, linear_ticks(low, high, most))


def from_zero(title: Title, values: Values) -> NumberAxis:
    """A linear axis from zero to a little above the values."""
    high = max((value for value in values if value is not None), default=1.0) * (1 + PADDING) or 1.0
    return NumberAxis(title, "linear", 0.0, high, linear_ticks(0.0, high))


def log_or_linear(title: Title, values: Values) -> NumberAxis:
    """A logarithmic axis over the values; a linear one where any of them is not positive."""
    known = [value for value in values if value is not None]
    if known and min(known) <= 0:
        return linear(title, known)
    low, high = (min(known), max(known)) if known else (0.1, 1.0)
    if high / low <= 1 + NARROW:
        low, high = low / 2, high * 2
    padding = 10 ** (PADDING * (math.log10(high) - math.log10(low)))
    low, high = low / padding, high * padding
    return NumberAxis(title, "log", low, high, log_ticks(low, high))


def symlog_or_linear(title: Title, values: Values, constant: float, reach: float) -> NumberAxis:
    """A linear axis over zero and the values; a symlog one where they reach beyond ``reach`` times the constant."""
    known = [0.0, *(value for value in values if value is not None)]
    if max(map(abs, known)) <= reach * constant:
        return linear(title, known)

    def along(value: float) -> float:
        return math.copysign(math.log1p(abs(value) / constant), value)

    def back(position: float) -> float:
        return math.copysign(math.expm1(abs(position)) * constant, position)

    padding = PADDING * (along(max(known)) - along(min(known)))
    low, high = back(along(min(known)) - padding), back(along(max(known)) + padding)
    return NumberAxis(title, "symlog", low, high, symlog_ticks(low, high, constant, along), constant)


def at_batch_sizes(sizes: Iterable[int]) -> NumberAxis:
    """A logarithmic axis with ticks at the batch sizes and half a step beyond the outermost."""
    ticks = sorted(set(sizes))
    if not ticks:
        return NumberAxis("batch size (examples)", "log", 1.0, 2.0, ())
    first, last = (ticks[1] / ticks[0], ticks[-1] / ticks[-2]) if len(ticks) > 1 else (2.0, 2.0)
    low, high = ticks[0] / math.sqrt(first), ticks[-1] * math.sqrt(last)
    return NumberAxis("batch size (examples)", "log", low, high, tuple(map(float, ticks)))


def ticks_at(axis: NumberAxis, values: Iterable[float]) -> NumberAxis:
    """The axis with its ticks at the values themselves, where these are few, short and far enough apart."""
    ticks = tuple(sorted(set(values)))
    if axis.kind != "log" or not 2 <= len(ticks) <= MOST_TICKS + 1 or any(len(text) > 6 for text in texts(ticks)):
        return axis
    gap = math.log(axis.high / axis.low) / (MOST_TICKS + 4)
    apart = all(math.log(b / a) >= gap for a, b in pairwise(ticks))
    return replace(axis, ticks=ticks) if apart else axis


def whole(axis: NumberAxis) -> NumberAxis:
    """The axis with ticks at whole numbers only."""
    return replace(axis, ticks=tuple(tick for tick in axis.ticks if tick.is_integer()))


def linear_ticks(low: float, high: float, most: int = MOST_TICKS) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten, as many as fit."""
    exponent = math.floor(math.log10((high - low) / most))
    for step in (Decimal(digit).scaleb(exponent) for digit in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / float(step)), math.floor(high / float(step))
        if last - first < most:
            return tuple(float(i * step) for i in range(first, last + 1))
    raise AssertionError("20 times the power of ten below a step is always enough")


def log_ticks(low: float, high: float, most: int = MOST_TICKS) -> tuple[float, ...]:
    """The finest of the usual ladders that has at most ``most`` rungs; linear steps where the range is narrow."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits, stride in _ladders(last - first):
        ticks = [float(f"{d}e{e}") for e in range(first, last + 1) if e % stride == 0 for d in digits]
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) <= most:
            return inside if len(inside) >= 3 else linear_ticks(low, high, most)
    return linear_ticks(low, high, most)


def _ladders(decades: int) -> Iterable[tuple[tuple[int, ...], int]]:
    yield (1, 2, 5), 1
    yield (1, 3), 1
    yield from (((1,), stride) for stride in range(1, decades + 1))


def symlog_ticks(low: float, high: float, constant: float, along: Callable[[float], float]) -> tuple[float, ...]:
    """Zero, then powers of ten and threes between them, on both sides, as long as they stand apart."""
    gap = 0.09 * (along(high) - along(low))
    first, last = math.ceil(math.log10(constant)), math.floor(math.log10(max(abs(low), abs(high))))
    coarse = [e for stride in (6, 3, 2, 1) for e in range(first, last + 1) if (e - first) % stride == 0]
    ticks = [0.0]
    for text in (*(f"1e{e}" for e in coarse), *(f"3e{e}" for e in range(first, last + 1))):
        pair = [tick for tick in (-float(text), float(text)) if low <= tick <= high]
        if all(abs(along(new) - along(old)) >= gap for new in pair for old in ticks):
            ticks.extend(pair)
    return tuple(sorted(ticks))


def texts(values: Sequence[float]) -> list[str]:
    """Labels of ticks, written in full, or all as powers of ten where that would be long."""
    short = all(value == 0 or 1e-4 <= abs(value) < 1e5 for value in values)
    return [plain(value) if short or abs(value) in (0, 1, 10) else scientific(value) for value in values]


def plain(value: float) -> str:
    """A number in full: 10,000; 0.05; −3."""
    return f"{Decimal(repr(float(value))).normalize():,f}".replace("-", "−")


def scientific(value: float) -> str:
    """A number as a power of ten: 10⁻⁹; −2×10¹²."""
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    power = int(exponent) + len(digits) - 1
    mantissa = plain(float(Decimal((0, digits, 1 - len(digits)))))
    return "−" * sign + ("" if mantissa == "1" else f"{mantissa}×") + f"10{str(power).translate(SUPERSCRIPTS)}"
