"""How fast: epochs until both rules have reached the same loss."""

from __future__ import annotations

import altair as alt
import pyarrow as pa

from lightball.report.figures.axes import at_batch_sizes, from_zero
from lightball.report.figures.data import complete, inline, rows_of
from lightball.report.figures.style import POINT, Row, finished, look_of


def epochs_to_same_loss(speed: pa.Table) -> alt.LayerChart:
    """Epochs until SGD and SGDM reach the loss that both reach, against the batch size.

    With several momenta SGD has a line for each, since the loss is that of a pairing.
    """
    rows = sorted(_named(complete(rows_of(speed), "epochs")), key=lambda row: row["batch_size"])
    look = look_of(rows)
    x, y = at_batch_sizes(row["batch_size"] for row in rows), from_zero("epochs", (row["epochs"] for row in rows))
    told = [
        alt.Tooltip("label:N", title="rule"),
        alt.Tooltip("batch_size:Q", title="batch size", format=","),
        alt.Tooltip("epochs:Q", title="epochs", format=".3~g"),
        alt.Tooltip("level:Q", title="loss", format=".3~g"),
    ]
    chart = alt.Chart(inline(rows, "label", "batch_size", "epochs", "level")).encode(
        x=x.x("batch_size"), y=y.y("epochs"), color=look.colour()
    )
    lines = chart.properties(name="lines").mark_line(strokeWidth=2, tooltip=None).encode(strokeDash=look.dash())
    points = chart.properties(name="points").mark_point(filled=True, size=1.3 * POINT, opacity=1)
    return finished(
        [lines, points.encode(shape=look.shape(), tooltip=told)],
        title="Epochs to the same loss",
        description="Epochs until each rule reaches the loss that both reach, by batch size, for "
        f"{' and '.join(look.labels) or 'no rule'}.",
    )


def _named(rows: list[Row]) -> list[Row]:
    """Rows with a label for each line: SGD is named after its pairing where there are several."""
    if len({row["momentum"] for row in rows}) > 1:
        for row in rows:
            row["label"] = f"SGD for β = {row['momentum']:g}" if row["rule"] == "SGD" else row["label"]
    return rows
