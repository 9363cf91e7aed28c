"""What figures of paired differences share: their rows, and how a verdict looks.

Differences are signed so that positive favours momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import pyarrow as pa

from lightball.report.figures.data import brief, complete, inline, rows_of, signed
from lightball.report.figures.style import NEUTRAL, Row, legend_of, ordinal

Measure = Literal["train_loss", "test_accuracy"]

SUBJECTS = {"train_loss": "Final training loss", "test_accuracy": "Test accuracy"}
NUMBERS = ("mean", "low", "high", "margin")
# A colour and a shape for each verdict: arrows point to where momentum moves a result, open is not settled.
COLOURS = {"no value": NEUTRAL, "helps": "#009E73", "hurts": "#CC79A7", "undecided": NEUTRAL}
SHAPES = {"no value": "circle", "helps": "triangle-right", "hurts": "triangle-left", "undecided": "diamond"}
FURTHEST_LINEAR = 8  # margins; where values reach further, the axis is symlog
MARGIN_OPACITY = 0.2


def difference_rows(differences: pa.Table, measure: Measure) -> list[Row]:
    """The rows of a measure by batch size and momentum, with the words of tooltips and the unit of those.

    Accuracies are told in points, unless their sizes say that they are no shares.
    """
    rows = [row for row in rows_of(differences) if row["measure"] == measure]
    sizes = [abs(row[name]) for row in rows for name in ("mean", "margin") if row[name] is not None]
    points = measure == "test_accuracy" and max(sizes, default=0) <= 1
    for row in rows:
        row["unit"] = 100 if points else 1
        mean, low, high, margin = (in_unit(row, name) for name in NUMBERS)
        row["beta"] = f"β = {row['momentum']:g}"
        row["value"] = signed(mean) + (" points" if points and mean is not None else "")
        row["interval"] = f"{signed(low)} to {signed(high)}" if low is not None and high is not None else "not known"
        row["limit"] = "not known" if margin is None else f"{margin:.3g}"
        row["evidence"] = f"{row['pairs']}" + (f", {row['pairs_needed']:,} needed" if row["pairs_needed"] else "")
    return sorted(rows, key=lambda row: (row["batch_size"], row["momentum"]))


def in_unit(row: Row, name: str) -> float | None:
    """A number of a row in the unit of its tooltip."""
    value: float | None = None if row[name] is None else brief(row[name] * row["unit"])
    return value


def verdicts_in_words(rows: Sequence[Row]) -> str:
    """All verdicts, for those who hear a figure."""
    told = ", ".join(f"{row['verdict']} at {row['batch_size']:,} ({row['beta']})" for row in rows)
    return f" Verdicts by batch size: {told}." if rows else ""


def intervals(rows: list[Row], place: str, at: Any, ends: tuple[Any, Any], mean: Any, legend: bool) -> list[alt.Chart]:
    """Interval and mean of each row in the colour and shape of its verdict.

    Args:
        place: the column that tells rows apart along one axis, ``at`` its channel.
        ends, mean: the channels of low, high and mean along the other axis.
        legend: whether to explain the verdicts above the plot.
    """
    present = [verdict for verdict in COLOURS if any(row["verdict"] == verdict for row in rows)]
    shown = legend_of(len(present)) if legend and present else None
    colours = [COLOURS[verdict] for verdict in present]
    fills = ["transparent" if verdict == "undecided" else COLOURS[verdict] for verdict in present]
    shapes = [SHAPES[verdict] for verdict in present]
    colour = alt.Color("verdict:N", scale=ordinal(present, colours), legend=shown)
    fill = alt.Fill("verdict:N", scale=ordinal(present, fills), legend=shown)
    shape = alt.Shape("verdict:N", scale=ordinal(present, shapes), legend=shown)
    columns = [place, "mean", "low", "high", "verdict", "batch_size", "beta", "value", "interval", "limit", "evidence"]
    whole = alt.Chart(inline(complete(rows, place, "low", "high"), *columns), name="intervals")
    means = alt.Chart(inline(complete(rows, place, "mean"), *columns), name="means")
    told = _told(rows)
    return [
        whole.mark_rule(strokeWidth=2).encode(at, *ends, color=colour, tooltip=told),
        means.mark_point(size=80, opacity=1, strokeWidth=1.5).encode(
            at, mean, color=colour, shape=shape, fill=fill, tooltip=told
        ),
    ]


def _told(rows: list[Row]) -> list[alt.Tooltip]:
    confidences = {row["confidence"] for row in rows if row["confidence"] is not None}
    confidence = f" ({100 * confidences.pop():.4g} %)" if len(confidences) == 1 else ""
    return [
        alt.Tooltip("batch_size:Q", title="batch size", format=","),
        alt.Tooltip("beta:N", title="momentum"),
        alt.Tooltip("value:N", title="value of momentum"),
        alt.Tooltip("interval:N", title=f"interval{confidence}"),
        alt.Tooltip("limit:N", title="margin"),
        alt.Tooltip("verdict:N", title="verdict"),
        alt.Tooltip("evidence:N", title="pairs"),
    ]
