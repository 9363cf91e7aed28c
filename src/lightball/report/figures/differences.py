"""Paired differences in units of the margin: a row for each batch size and momentum, with its verdict."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import altair as alt
import pyarrow as pa

from lightball.report.figures.axes import NumberAxis, lookup, symlog_or_linear
from lightball.report.figures.data import brief, inline
from lightball.report.figures.style import NEUTRAL, Row, finished
from lightball.report.figures.verdicts import (
    FURTHEST_LINEAR,
    MARGIN_OPACITY,
    SUBJECTS,
    Measure,
    difference_rows,
    intervals,
    verdicts_in_words,
)

TITLE = ("value of momentum, in margins", "← SGD better\u2003\u2003SGDM better →")
ROW, GROUP_GAP = 20, 0.5  # pixels a row; rows between batch sizes where there are several momenta
FEWEST_ROWS = 3


def paired_differences(differences: pa.Table, measure: Measure) -> alt.LayerChart:
    """A row for each batch size and momentum: mean difference and interval in units of the margin, and the verdict.

    The shaded band, −1 to 1, is where a difference does not matter. Symlog where values reach beyond 8 margins.
    """
    rows = _in_margins(difference_rows(differences, measure))
    reach = [-1.4, 1.4, *(row[name] for row in rows for name in ("mean", "low", "high"))]
    x = symlog_or_linear(TITLE, reach, 1, FURTHEST_LINEAR)
    lowest = rows[-1]["row"] if rows else 0.0
    down = alt.Scale(domain=[lowest + 0.6, -0.6], nice=False, zero=False)
    silent: dict[str, Any] = {"scale": x.scale(), "axis": None}
    chart = finished(
        [
            *_does_not_matter(x),
            *_names(rows, down),
            *intervals(
                rows,
                "row",
                alt.Y("row:Q", scale=down, axis=None),
                (alt.X("low:Q", **silent), alt.X2("high:Q")),
                alt.X("mean:Q", **silent),
                legend=False,
            ),
        ],
        title=SUBJECTS[measure],
        height=max(FEWEST_ROWS, lowest + 1.2) * ROW,
        description=f"{SUBJECTS[measure]}: mean difference and interval of pairs in units of the margin, by batch size "
        f"and momentum; positive favours momentum.{verdicts_in_words(rows)}",
    )
    independent: alt.LayerChart = chart.resolve_axis(x="independent", y="independent")
    return independent


def _in_margins(rows: list[Row]) -> list[Row]:
    """Rows in units of their margins, each with its name and its place from above."""
    several = len({row["momentum"] for row in rows}) > 1
    starts = [True, *(a["batch_size"] != b["batch_size"] for a, b in pairwise(rows))]
    place = -1.0
    for row, starts_group in zip(rows, starts, strict=bool(rows)):
        place += 1 + GROUP_GAP * (several and starts_group and place >= 0)
        row["row"] = place
        size = f"{row['batch_size']:,}" if starts_group else ""
        row["name"] = " · ".join(part for part in (size, row["beta"] if several else "") if part)
        for name in ("mean", "low", "high"):
            known = row[name] is not None and (row["margin"] or 0) > 0
            row[name] = brief(row[name] / row["margin"]) if known else None
    return rows


def _does_not_matter(x: NumberAxis) -> list[alt.Chart]:
    """The band from −1 to 1, named above the plot, and the line at zero."""
    named = alt.Axis(
        orient="top", values=[0], title=None, labelExpr="'does not matter'", ticks=False, domain=False, grid=False
    )
    band = alt.Chart(alt.InlineData(values=[{"low": -1, "high": 1}]), name="margin").mark_rect(
        color=NEUTRAL, opacity=MARGIN_OPACITY
    )
    zero = alt.Chart(alt.InlineData(values=[{"low": 0}])).mark_rule(color=NEUTRAL, strokeWidth=1)
    return [
        band.encode(x=alt.X("low:Q", scale=x.scale(), axis=named), x2="high:Q"),
        zero.encode(x=x.x("low")),
    ]


def _names(rows: list[Row], down: alt.Scale) -> list[alt.Chart]:
    """Batch size and momentum on the left, the verdict on the right: axes, of marks that do not show."""
    places = [row["row"] for row in rows]
    bare: dict[str, Any] = {"ticks": False, "domain": False, "grid": False, "labelOverlap": False, "values": places}
    several = len({row["momentum"] for row in rows}) > 1
    title = ["batch size", "· momentum" if several else "(examples)"]
    left = alt.Axis(title=title, labelExpr=lookup(places, [row["name"] for row in rows]), **bare)
    right = alt.Axis(orient="right", title=None, labelExpr=lookup(places, [row["verdict"] for row in rows]), **bare)
    unseen = alt.Chart(inline(rows, "row")).mark_point(opacity=0, size=0, tooltip=None)
    return [unseen.encode(y=alt.Y("row:Q", scale=down, axis=axis)) for axis in (left, right)]
