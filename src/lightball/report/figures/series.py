"""Lines and points over two number axes: measured values with their errors beside what is proven."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import altair as alt

from lightball.report.figures.axes import NumberAxis, Title, linear, log_or_linear, ticks_at
from lightball.report.figures.data import brief, complete, inline
from lightball.report.figures.style import (
    BAND_OPACITY,
    DASHES,
    HEIGHT,
    NEUTRAL,
    POINT,
    RULE_COLOURS,
    Row,
    finished,
    legend_of,
    ordinal,
)

# Okabe–Ito: green, purple, orange and sky blue beside the blue of SGD and the vermilion of SGDM.
MORE_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
COLOURS = {**RULE_COLOURS, "limit": MORE_COLOURS[0], "theory": NEUTRAL}
NARROWEST_PLOT, SYMBOL_WIDTH, LETTER_WIDTH = 320, 32, 6  # pixels, for legends
FEW_VALUES = 9  # up to so many, ticks stand at the values themselves

Mark = Literal["line", "dashes", "points", "joined"]


@dataclass(frozen=True)
class Series:
    """Values along an axis that belong together.

    Args:
        name: what the legend says; series of one name share an entry and the colour of the first, as points and the
            line that they should lie on.
        x: where.
        y: the values; None for none.
        low, high: ends of their intervals: a band for lines, bars for points.
        colour: "SGD", "SGDM", "limit" (what both tend to), "theory" (neutral), or a number, for one of six.
        mark: a line, a dashed line, points, or points joined by a line.
        hollow: points that are shown but do not count, such as those that noise limits.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    colour: str | int = "theory"
    mark: Mark = "line"
    hollow: Sequence[bool] = ()


def series_chart(
    series: Sequence[Series],
    *,
    x: Title,
    y: Title,
    description: str,
    title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    level: float | None = None,
    height: float = HEIGHT,
) -> alt.LayerChart:
    """Series on shared axes; a logarithmic axis becomes a linear one where a value is not positive.

    Args:
        series: what to draw, later ones above earlier ones.
        x, y: titles of the axes, with units.
        description: what there is to see, for those who cannot.
        level: a value on the vertical axis to mark with a thin line, such as 1 for a ratio.
    """
    rows = [row for one in series for row in _rows(one)]
    across = (log_or_linear if log_x else linear)(x, [row["x"] for row in rows])
    if log_x and len({row["x"] for row in rows}) <= FEW_VALUES:
        across = ticks_at(across, [row["x"] for row in rows])
    values = [row[name] for row in rows for name in ("y", "low", "high") if not (log_y and _not_positive(row[name]))]
    up = (log_or_linear if log_y else linear)(y, [*values, *([] if level is None else [level])])
    look = _Look(series)
    kinds = dict.fromkeys((one.name, one.mark) for one in series)
    layers = [*_level(level, up), *(layer for kind in kinds for layer in _layers(*kind, rows, look, across, up))]
    return finished(layers, title=title, description=description, height=height)


class _Look:
    """What each name looks like; all channels share one legend."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.names = list(dict.fromkeys(one.name for one in series))
        self._marks = [{one.mark for one in series if one.name == name} for name in self.names]
        self._colours = [next(_colour(one) for one in series if one.name == name) for name in self.names]

    def colour(self) -> alt.Color:
        return alt.Color("series:N", scale=ordinal(self.names, self._colours), legend=self._key())

    def dash(self) -> alt.StrokeDash:
        dashes = [DASHES[1] if "dashes" in marks else DASHES[0] for marks in self._marks]
        return alt.StrokeDash("series:N", scale=ordinal(self.names, dashes), legend=self._key())

    def shape(self) -> alt.Shape:
        shapes = ["circle" if marks & {"points", "joined"} else "stroke" for marks in self._marks]
        return alt.Shape("series:N", scale=ordinal(self.names, shapes), legend=self._key())

    def _key(self) -> alt.Legend | None:
        """A legend whose columns fit a narrow page, since Vega cuts what does not fit."""
        if len(self.names) < 2:
            return None
        entry = SYMBOL_WIDTH + LETTER_WIDTH * max(map(len, self.names))
        columns = max(1, min(len(self.names), NARROWEST_PLOT // entry))
        return legend_of(len(self.names), columns=columns, symbolStrokeWidth=2)


def _colour(one: Series) -> str:
    palette = (*RULE_COLOURS.values(), *MORE_COLOURS)
    return palette[one.colour % len(palette)] if isinstance(one.colour, int) else COLOURS[one.colour]


def _rows(one: Series) -> Iterator[Row]:
    missing: Sequence[None] = [None] * len(one.x)
    lows, highs, hollow = one.low or missing, one.high or missing, one.hollow or [False] * len(one.x)
    for x, y, low, high, is_hollow in zip(one.x, one.y, lows, highs, hollow, strict=True):
        numbers = {"x": x, "y": y, "low": low, "high": high}
        yield {
            "series": one.name,
            "mark": one.mark,
            "hollow": is_hollow,
            **{name: None if value is None else brief(float(value)) for name, value in numbers.items()},
        }


def _not_positive(value: float | None) -> bool:
    return value is not None and value <= 0


def _level(level: float | None, up: NumberAxis) -> list[alt.Chart]:
    if level is None:
        return []
    rule = alt.Chart(alt.InlineData(values=[{"level": level}]), name="level").mark_rule(color=NEUTRAL, strokeWidth=1)
    return [rule.encode(y=up.y("level"))]


def _layers(name: str, mark: Mark, rows: list[Row], look: _Look, across: NumberAxis, up: NumberAxis) -> list[alt.Chart]:
    """The marks of one name and kind, those that would leave a logarithmic axis cut at its edge."""
    drawn = complete([row for row in rows if (row["series"], row["mark"]) == (name, mark)], "x", "y")
    if up.kind == "log":
        drawn = [{**row, "low": row["low"] and max(row["low"], up.low)} for row in drawn if row["y"] > 0]
    spread = complete(drawn, "low", "high")
    told = [
        alt.Tooltip("series:N", title=" "),
        alt.Tooltip("x:Q", title=_plain(across.title), format=".4~g"),
        alt.Tooltip("y:Q", title=_plain(up.title), format=".4~g"),
        *([alt.Tooltip("low:Q", title="from", format=".4~g")] if spread else []),
        *([alt.Tooltip("high:Q", title="to", format=".4~g")] if spread else []),
    ]

    def chart(part: str, of: list[Row]) -> alt.Chart:
        data = inline(of, "series", "x", "y", "low", "high")
        place = f"{part}_{mark}_{look.names.index(name)}"
        return alt.Chart(data, name=place).encode(x=across.x("x"), color=look.colour())

    lines = chart("lines", drawn).mark_line(strokeWidth=2, tooltip=None).encode(y=up.y("y"), strokeDash=look.dash())
    if mark in ("line", "dashes"):
        bands = chart("bands", spread).mark_area(opacity=BAND_OPACITY, tooltip=None)
        # Points do not show on a line, but can be pointed at.
        unseen = chart("points", drawn).mark_point(filled=True, size=POINT, opacity=0)
        return [
            *([bands.encode(y=up.y("low"), y2="high:Q")] if spread else []),
            lines,
            unseen.encode(y=up.y("y"), tooltip=told, shape=look.shape()),
        ]
    bars = chart("bars", spread).mark_rule(strokeWidth=1.5, tooltip=None).encode(y=up.y("low"), y2="high:Q")
    points = [
        chart(part, [row for row in drawn if row["hollow"] == (part == "hollow")])
        .mark_point(filled=part == "points", size=1.3 * POINT, opacity=1)
        .encode(y=up.y("y"), tooltip=told, shape=look.shape())
        for part in ("points", "hollow")
    ]
    return [*([lines] if mark == "joined" else []), *([bars] if spread else []), *points]


def _plain(title: Title) -> str:
    return title if isinstance(title, str) else " ".join(title)
