"""Training curves of a rule, and of the single pairs of runs on demand."""

from __future__ import annotations

from collections import Counter

import altair as alt
import pyarrow as pa

from lightball.report.figures.axes import NumberAxis, linear, log_or_linear, whole
from lightball.report.figures.data import batch_title, complete, inline, rows_of
from lightball.report.figures.style import BAND_OPACITY, POINT, Row, RuleLook, finished, look_of

FEW_EPOCHS = 8  # up to so many, a line shows its points
SHOW_PAIRS, POINTED_PAIR = "single_pairs", "pointed_pair"
# How opaque the runs are that are not pointed at: less so while another pair is.
FADED = f"length(data('{POINTED_PAIR}_store')) ? 0.12 : 0.45"


def training_curves(curves: pa.Table, pairs: pa.Table) -> alt.LayerChart:
    """Training loss by epoch at one batch size: mean, and band from the smallest to the largest over seeds.

    Single runs appear by a checkbox, where ``pairs`` has any; pointing at one shows its partner too. Until then they
    cost the reader nothing.
    """
    rows, singles = complete(rows_of(curves), "epoch", "loss"), rows_of(pairs)
    look = look_of([*rows, *singles], lines=True)
    x = whole(linear("epochs", (row["epoch"] for row in rows), padding=0))
    y = log_or_linear(
        "training loss",
        [
            *(row[name] for row in rows for name in ("loss", "low", "high")),
            *(loss for row in singles for loss in row["loss"]),
        ],
    )
    title = batch_title([*rows, *singles])
    return finished(
        [*_means(rows, look, x, y), *([_singles(singles, look, x, y)] if singles else [])],
        title=title,
        description=f"Training loss by epoch{f', {title.lower()}' if title else ''}: mean and range over seeds for "
        f"{' and '.join(look.labels) or 'no rule'}.",
    )


def _means(rows: list[Row], look: RuleLook, x: NumberAxis, y: NumberAxis) -> list[alt.Chart]:
    few = max(Counter(row["label"] for row in rows).values(), default=0) <= FEW_EPOCHS
    told = [
        alt.Tooltip("label:N", title="rule"),
        alt.Tooltip("epoch:Q", title="epoch", format=".4~g"),
        alt.Tooltip("loss:Q", title="mean", format=".4~g"),
        alt.Tooltip("low:Q", title="smallest", format=".4~g"),
        alt.Tooltip("high:Q", title="largest", format=".4~g"),
        alt.Tooltip("runs:Q", title="runs"),
    ]

    def chart(name: str, drawn: list[Row]) -> alt.Chart:
        data = inline(drawn, "label", "epoch", "loss", "low", "high", "runs")
        return alt.Chart(data, name=name).encode(x=x.x("epoch"), color=look.colour())

    bands = chart("bands", complete(rows, "low", "high")).mark_area(opacity=BAND_OPACITY, tooltip=None)
    means = chart("means", rows).mark_line(strokeWidth=2, tooltip=None)
    # Where there are many, points do not show, but can be pointed at.
    points = chart("points", rows).mark_point(filled=True, size=POINT, opacity=1 if few else 0)
    return [
        bands.encode(y=y.y("low"), y2="high:Q"),
        means.encode(y=y.y("loss"), strokeDash=look.dash()),
        points.encode(y=y.y("loss"), tooltip=told),
    ]


def _singles(singles: list[Row], look: RuleLook, x: NumberAxis, y: NumberAxis) -> alt.Chart:
    """Lines of single runs; the filter stands before the unfolding of the lists."""
    shown = alt.param(name=SHOW_PAIRS, value=False, bind=alt.binding_checkbox(name="single pairs "))
    pointed = alt.selection_point(name=POINTED_PAIR, fields=["pair"], on="pointerover", clear="pointerout", empty=False)
    chart = alt.Chart(inline(singles, "label", "pair", "epoch", "loss"), name="singles").add_params(shown, pointed)
    lines: alt.Chart = (
        chart.transform_filter(shown)
        .transform_flatten(["epoch", "loss"])
        .mark_line()
        .encode(
            x=x.x("epoch"),
            y=y.y("loss"),
            color=look.colour(),
            strokeDash=look.dash(),
            detail="pair:N",
            strokeWidth=alt.condition(pointed, alt.value(3), alt.value(1)),
            strokeOpacity=alt.condition(pointed, alt.value(1), alt.value(alt.expr(FADED))),
            tooltip=[alt.Tooltip("label:N", title="rule"), alt.Tooltip("pair:O", title="pair")],
        )
    )
    return lines
