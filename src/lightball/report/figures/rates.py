"""Final loss and test accuracy against the learning rate, at one batch size."""

from __future__ import annotations

from collections import Counter
from typing import Any

import altair as alt
import pyarrow as pa

from lightball.report.figures.axes import NumberAxis, linear, log_or_linear, ticks_at
from lightball.report.figures.data import batch_title, brief, complete, inline, rows_of
from lightball.report.figures.style import BAND_OPACITY, CROSS, POINT, Row, RuleLook, finished, look_of

TOP = 8  # pixels below the top of the plot, where marks of runs without a value are


def loss_by_rate(rates: pa.Table) -> alt.LayerChart:
    """Final training loss by effective learning rate, both axes logarithmic: mean and range over seeds.

    A ring is the selected rate, a × a rate where some run failed, a dashed vertical line the largest rate of a rule
    without failures. ``rates`` holds one batch size.
    """
    rows = _rows(rates, "train_loss", 1)
    return _by_rate(rows, log_or_linear("final training loss", _values(rows)), "Final training loss")


def accuracy_by_rate(rates: pa.Table) -> alt.LayerChart:
    """Test accuracy by effective learning rate, as :func:`loss_by_rate`; in % where all values are shares."""
    known = [row[name] for row in rows_of(rates) for name in _columns("test_accuracy") if row[name] is not None]
    share = all(0 <= value <= 1 for value in known)
    rows = _rows(rates, "test_accuracy", 100 if share else 1)
    y = linear("test accuracy (%)" if share else "test accuracy", _values(rows) if known else (0, 100), most=6)
    return _by_rate(rows, y, "Test accuracy")


def _columns(measure: str) -> tuple[str, str, str]:
    return measure, f"{measure}_low", f"{measure}_high"


def _rows(rates: pa.Table, measure: str, unit: float) -> list[Row]:
    """Rows with value, low and high in the figure's unit, and failures in words."""
    rows = complete(rows_of(rates), "effective_lr")
    for row in rows:
        for name, column in zip(("value", "low", "high"), _columns(measure), strict=True):
            row[name] = None if row[column] is None else brief(row[column] * unit)
        row["failures"] = f"{row['failed'] or 0} of {row['runs']}"
    return sorted(rows, key=lambda row: row["effective_lr"])


def _values(rows: list[Row]) -> list[float | None]:
    return [row[name] for row in rows for name in ("value", "low", "high")]


def _by_rate(rows: list[Row], y: NumberAxis, subject: str) -> alt.LayerChart:
    look = look_of(rows)
    etas = [row["effective_lr"] for row in rows]
    x = ticks_at(log_or_linear("effective learning rate η", etas), etas)
    title = batch_title(rows)
    return finished(
        [
            *_spreads(rows, look, x, y),
            *_largest_without_failures(rows, look, x),
            *_means(rows, look, x, y),
        ],
        title=title,
        description=f"{subject} by effective learning rate{f', {title.lower()}' if title else ''}: mean and range over "
        f"seeds for {' and '.join(look.labels) or 'no rule'}; selected rates and rates with failed runs are marked.",
    )


def _spreads(rows: list[Row], look: RuleLook, x: NumberAxis, y: NumberAxis) -> list[alt.Chart]:
    """Bands from the smallest to the largest seed; a bar for a rule with one rate, whose band would have no width."""
    known = complete(rows, "value", "low", "high")
    rates_of = Counter(row["label"] for row in known)
    alone = [row for row in known if rates_of[row["label"]] == 1]

    def chart(name: str, drawn: list[Row]) -> alt.Chart:
        data = inline(drawn, "label", "effective_lr", "low", "high")
        return alt.Chart(data, name=name).encode(
            x=x.x("effective_lr"), y=y.y("low"), y2="high:Q", color=look.colour(), detail="label:N"
        )

    return [
        chart("bands", known).mark_area(opacity=BAND_OPACITY, tooltip=None),
        chart("bars", alone).mark_rule(opacity=2 * BAND_OPACITY, strokeWidth=3),
    ]


def _means(rows: list[Row], look: RuleLook, x: NumberAxis, y: NumberAxis) -> list[alt.Chart]:
    """Lines over the means, points on them, crosses where runs failed, rings around the selected rates."""
    known = complete(rows, "value")
    columns = ("label", "effective_lr", "value", "low", "high", "runs", "failures", "phase")
    told = [
        alt.Tooltip("label:N", title="rule"),
        alt.Tooltip("effective_lr:Q", title="rate η", format=".4~g"),
        alt.Tooltip("value:Q", title="mean", format=".4~g"),
        alt.Tooltip("low:Q", title="smallest", format=".4~g"),
        alt.Tooltip("high:Q", title="largest", format=".4~g"),
        alt.Tooltip("failures:N", title="failed"),
        alt.Tooltip("phase:N", title="seeds of"),
    ]
    failed = [row for row in rows if row["failed"]]
    crosses: dict[str, Any] = {"shape": CROSS, "size": 1.6 * POINT, "strokeWidth": 2, "filled": False, "opacity": 1}

    def chart(name: str, drawn: list[Row]) -> alt.Chart:
        at = x.x("effective_lr")
        return alt.Chart(inline(drawn, *columns), name=name).encode(x=at, color=look.colour(), tooltip=told)

    return [
        chart("means", known).mark_line(strokeWidth=2, tooltip=None).encode(y=y.y("value"), strokeDash=look.dash()),
        chart("points", [row for row in known if not row["failed"]])
        .mark_point(filled=True, size=POINT, opacity=1)
        .encode(y=y.y("value"), shape=look.shape()),
        chart("failures", complete(failed, "value")).mark_point(**crosses).encode(y=y.y("value")),
        chart("failures_without_value", [row for row in failed if row["value"] is None])
        .mark_point(**crosses)
        .encode(y=alt.value(TOP)),
        chart("selected", [row for row in known if row["selected"]])
        .mark_point(shape="circle", filled=False, size=5 * POINT, strokeWidth=1.5, opacity=1)
        .encode(y=y.y("value")),
    ]


def _largest_without_failures(rows: list[Row], look: RuleLook, x: NumberAxis) -> list[alt.Chart]:
    """One dashed line for each rule; dashes take turns, so that all are seen where rules share a rate."""
    count = len(look.labels)
    dash = 5
    layers = []
    for turn, (label, colour) in enumerate(zip(look.labels, look.colours, strict=True)):
        stable = [row for row in rows if row["stable"] and row["label"] == label]
        dashes: dict[str, Any] = {"strokeDash": [dash, dash * max(1, count - 1)], "strokeDashOffset": -turn * dash}
        layers.append(
            alt.Chart(inline(stable, "label", "effective_lr"), name=f"largest_without_failures_{turn}")
            .mark_rule(color=colour, strokeWidth=1.5, opacity=0.8, **dashes)
            .encode(
                x=x.x("effective_lr"),
                tooltip=[
                    alt.Tooltip("label:N", title="rule"),
                    alt.Tooltip("effective_lr:Q", title="largest rate without failures", format=".4~g"),
                ],
            )
        )
    return layers
