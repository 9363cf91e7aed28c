"""The value of momentum against the batch size, in the unit of the measure."""

from __future__ import annotations

import math
from itertools import pairwise

import altair as alt
import pyarrow as pa

from lightball.report.figures.axes import NumberAxis, at_batch_sizes, symlog_or_linear
from lightball.report.figures.data import complete, inline
from lightball.report.figures.style import DASHES, LEGEND_OF_LINES, NEUTRAL, Row, finished, legend_of, ordinal
from lightball.report.figures.verdicts import (
    FURTHEST_LINEAR,
    MARGIN_OPACITY,
    NUMBERS,
    SUBJECTS,
    Measure,
    difference_rows,
    in_unit,
    intervals,
    verdicts_in_words,
)

SIDE_STEP = 0.1  # from one momentum to the next, of the distance between batch sizes


def value_by_batch_size(differences: pa.Table, measure: Measure) -> alt.LayerChart:
    """The value of momentum, with its interval, by batch size: a line for each momentum, the margin as a band.

    In the measure's own unit, accuracy in points where it is a share. Symlog where values reach beyond 8 of the
    smallest margin.
    """
    rows = [{**row, **{name: in_unit(row, name) for name in NUMBERS}} for row in difference_rows(differences, measure)]
    x, bands = at_batch_sizes(row["batch_size"] for row in rows), _margins(rows)
    reach = [row[name] for row in rows for name in ("mean", "low", "high")]
    reach += [side * 1.2 * band["high"] for band in bands for side in (-1, 1)]
    margin = min((band["high"] for band in bands), default=1.0)
    y = symlog_or_linear(_title(rows, measure), reach, margin, FURTHEST_LINEAR)
    placed = _side_by_side(rows)
    return finished(
        [
            *_bands(bands, x, y),
            *_lines(placed, x, y),
            *intervals(placed, "at", x.x("at"), (y.y("low"), alt.Y2("high:Q")), y.y("mean"), legend=True),
        ],
        title=SUBJECTS[measure],
        description=f"Value of momentum for {SUBJECTS[measure].lower()} by batch size: mean difference and interval of "
        f"pairs, with the margin as a band; positive favours momentum.{verdicts_in_words(rows)}",
    )


def _title(rows: list[Row], measure: Measure) -> str:
    points = measure == "test_accuracy" and all(row["unit"] == 100 for row in rows)
    return "value of momentum (points)" if points else "value of momentum"


def _margins(rows: list[Row]) -> list[Row]:
    """A band of ± the margin around each batch size; bands meet halfway, so that they tile the axis."""
    margins: dict[int, float] = {}
    for row in rows:
        margins[row["batch_size"]] = max(margins.get(row["batch_size"], 0.0), row["margin"] or 0.0)
    axis = at_batch_sizes(margins)
    edges = [axis.low, *(math.sqrt(a * b) for a, b in pairwise(margins)), axis.high]
    tiles = zip(margins.values(), pairwise(edges), strict=False)
    return [{"at": start, "end": end, "low": -margin, "high": margin} for margin, (start, end) in tiles if margin > 0]


def _bands(bands: list[Row], x: NumberAxis, y: NumberAxis) -> list[alt.Chart]:
    """The margins, and the line at zero."""
    tiles = alt.Chart(alt.InlineData(values=bands), name="margins").mark_rect(
        color=NEUTRAL, opacity=MARGIN_OPACITY, strokeWidth=0
    )
    zero = alt.Chart(alt.InlineData(values=[{"low": 0}])).mark_rule(color=NEUTRAL, strokeWidth=1)
    told = [alt.Tooltip("high:Q", title="margin ±", format=".3~g")]
    return [
        tiles.encode(x=x.x("at"), x2="end:Q", y=y.y("low"), y2="high:Q", tooltip=told),
        zero.encode(y=y.y("low")),
    ]


def _side_by_side(rows: list[Row]) -> list[Row]:
    """Rows with a place each, those of several momenta next to each other at their batch size."""
    momenta, sizes = (sorted({row[name] for row in rows}) for name in ("momentum", "batch_size"))
    step = min((b / a for a, b in pairwise(sizes)), default=2.0) ** SIDE_STEP
    middle = (len(momenta) - 1) / 2
    return [{**row, "at": row["batch_size"] * step ** (momenta.index(row["momentum"]) - middle)} for row in rows]


def _lines(rows: list[Row], x: NumberAxis, y: NumberAxis) -> list[alt.Chart]:
    """A line over the means of each momentum, told apart by its dash."""
    betas = list(dict.fromkeys(row["beta"] for row in sorted(rows, key=lambda row: row["momentum"])))
    dashes = [DASHES[rank % len(DASHES)] for rank in range(len(betas))]
    dash = alt.StrokeDash(
        "beta:N",
        scale=ordinal(betas, dashes),
        legend=legend_of(len(betas), **LEGEND_OF_LINES, orient="bottom") if len(betas) > 1 else None,
    )
    means = alt.Chart(inline(complete(rows, "mean"), "at", "mean", "beta"), name="lines")
    line = means.mark_line(color=NEUTRAL, strokeWidth=1.5, tooltip=None)
    return [line.encode(x=x.x("at"), y=y.y("mean"), strokeDash=dash)]
