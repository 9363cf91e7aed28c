"""Paired differences by task, and what each rule scores: a row for each name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from lightball.report.figures.axes import NumberAxis, linear, lookup
from lightball.report.figures.data import brief, inline
from lightball.report.figures.style import NEUTRAL, RULE_COLOURS, Row, finished, legend_of, ordinal
from lightball.report.figures.verdicts import COLOURS, MARGIN_OPACITY, SHAPES

ROW = 26  # pixels
FEWEST_ROWS = 2
APART = 0.22  # of a row, between the marks of a name
ALSO = "#009E73"  # Okabe–Ito green, for what is neither rule


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with its interval; positive favours momentum."""

    name: str
    mean: float
    low: float
    high: float
    margin: float
    verdict: str


@dataclass(frozen=True)
class Spread:
    """A mean and its standard deviation, None where there is none; ``series`` is SGD, SGDM or something else."""

    name: str
    series: str
    mean: float
    deviation: float | None


def forest(differences: Sequence[Difference], *, x: tuple[str, ...], description: str) -> alt.LayerChart:
    """A row for each difference: mean and interval in the look of its verdict, and the margin as a band."""
    rows = [_told(place, one) for place, one in enumerate(differences)]
    reach = [0.0, *(row[name] for row in rows for name in ("mean", "low", "high"))]
    reach += [side * 1.3 * row["margin"] for row in rows for side in (-1, 1)]
    across = linear(x, reach)
    names, verdicts = ([row[key] for row in rows] for key in ("name", "verdict"))
    return _by_name(
        [*_margins(rows, across), *_names(names, verdicts), *_intervals(rows, across)],
        f"{description} " + ", ".join(f"{row['name']}: {row['verdict']}" for row in rows) + ".",
        len(rows),
    )


def spreads(values: Sequence[Spread], *, x: str, description: str) -> alt.LayerChart:
    """A row for each name, with a point for each of its series and a bar of one standard deviation either way."""
    names = list(dict.fromkeys(one.name for one in values))
    series = list(dict.fromkeys(one.series for one in values))
    rows = [
        {
            "name": one.name,
            "series": one.series,
            "at": names.index(one.name) + APART * (series.index(one.series) - (len(series) - 1) / 2),
            "mean": brief(one.mean),
            "low": brief(one.mean - (one.deviation or 0.0)),
            "high": brief(one.mean + (one.deviation or 0.0)),
            "deviation": brief(one.deviation),
        }
        for one in values
    ]
    across = linear(x, [row[name] for row in rows for name in ("low", "high")])
    colours = [RULE_COLOURS.get(one, ALSO) for one in series]
    colour = alt.Color("series:N", scale=ordinal(series, colours), legend=legend_of(len(series)))
    told = [
        alt.Tooltip("name:N", title=" "),
        alt.Tooltip("series:N", title=" "),
        alt.Tooltip("mean:Q", title="mean", format=".4~g"),
        alt.Tooltip("deviation:Q", title="standard deviation", format=".3~g"),
    ]
    at = alt.Y("at:Q", scale=_down(len(names)), axis=None)
    bars = alt.Chart(inline(rows), name="deviations").mark_rule(strokeWidth=2, tooltip=None)
    points = alt.Chart(inline(rows), name="means").mark_point(filled=True, size=70, opacity=1)
    return _by_name(
        [
            *_names(names),
            bars.encode(at, x=across.x("low"), x2="high:Q", color=colour),
            points.encode(at, x=across.x("mean"), color=colour, tooltip=told),
        ],
        description,
        len(names),
    )


def _told(place: int, one: Difference) -> Row:
    numbers = {name: brief(getattr(one, name)) for name in ("mean", "low", "high", "margin")}
    interval = f"{one.low:+.2f} to {one.high:+.2f}".replace("-", "−")
    return {"at": place, "name": one.name, "verdict": one.verdict, "interval": interval, **numbers}


def _by_name(layers: Sequence[alt.Chart], description: str, rows: int) -> alt.LayerChart:
    """Layers as one chart; those with the names keep their axes beside those without."""
    chart = finished(layers, description=description, height=max(FEWEST_ROWS, rows) * ROW)
    independent: alt.LayerChart = chart.resolve_axis(y="independent")
    return independent


def _down(rows: int) -> alt.Scale:
    return alt.Scale(domain=[max(FEWEST_ROWS, rows) - 0.4, -0.6], nice=False, zero=False)


def _names(names: Sequence[str], right: Sequence[str] = ()) -> list[alt.Chart]:
    """Names on the left, and what is said of them on the right: axes, of marks that do not show."""
    places = list(range(len(names)))
    bare: dict[str, Any] = {"ticks": False, "domain": False, "grid": False, "labelOverlap": False, "values": places}
    unseen = alt.Chart(inline([{"at": place} for place in places])).mark_point(opacity=0, size=0, tooltip=None)
    axes = [alt.Axis(title=None, labelExpr=lookup(places, list(names)), **bare)]
    if right:
        axes.append(alt.Axis(orient="right", title=None, labelExpr=lookup(places, list(right)), **bare))
    return [unseen.encode(y=alt.Y("at:Q", scale=_down(len(names)), axis=axis)) for axis in axes]


def _margins(rows: list[Row], across: NumberAxis) -> list[alt.Chart]:
    """A band of ± the margin in each row, and the line at zero."""
    bands = [
        {"low": -row["margin"], "high": row["margin"], "top": row["at"] - 0.5, "bottom": row["at"] + 0.5}
        for row in rows
    ]
    band = alt.Chart(inline(bands), name="margins").mark_rect(color=NEUTRAL, opacity=MARGIN_OPACITY, strokeWidth=0)
    zero = alt.Chart(alt.InlineData(values=[{"low": 0}])).mark_rule(color=NEUTRAL, strokeWidth=1)
    top = alt.Y("top:Q", scale=_down(len(rows)), axis=None)
    return [
        band.encode(top, x=across.x("low"), x2="high:Q", y2="bottom:Q", tooltip=alt.value(None)),
        zero.encode(x=across.x("low")),
    ]


def _intervals(rows: list[Row], across: NumberAxis) -> list[alt.Chart]:
    present = [verdict for verdict in COLOURS if any(row["verdict"] == verdict for row in rows)]
    colours = [COLOURS[verdict] for verdict in present]
    fills = ["transparent" if verdict == "undecided" else COLOURS[verdict] for verdict in present]
    colour = alt.Color("verdict:N", scale=ordinal(present, colours), legend=None)
    told = [
        alt.Tooltip("name:N", title=" "),
        alt.Tooltip("mean:Q", title="mean difference", format="+.3~g"),
        alt.Tooltip("interval:N", title="interval"),
        alt.Tooltip("margin:Q", title="margin ±", format=".3~g"),
        alt.Tooltip("verdict:N", title="verdict"),
    ]
    at = alt.Y("at:Q", scale=_down(len(rows)), axis=None)
    bars = alt.Chart(inline(rows), name="intervals").mark_rule(strokeWidth=2)
    points = alt.Chart(inline(rows), name="means").mark_point(size=80, opacity=1, strokeWidth=1.5)
    return [
        bars.encode(at, x=across.x("low"), x2="high:Q", color=colour, tooltip=told),
        points.encode(
            at,
            x=across.x("mean"),
            color=colour,
            fill=alt.Fill("verdict:N", scale=ordinal(present, fills), legend=None),
            shape=alt.Shape("verdict:N", scale=ordinal(present, [SHAPES[v] for v in present]), legend=None),
            tooltip=told,
        ),
    ]
