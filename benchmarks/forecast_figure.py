"""The figure of `benchmarks/forecast.py`: forecasts against measurements, for cells that were measured well enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt

from lightball.report.figures.export import png, svg

if TYPE_CHECKING:
    from forecast import Cell

SMALLEST = 1e-4  # around 0 the axes are linear so far


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Write the figure to a file, PNG or SVG by its suffix."""
    rows = [
        {
            "measured": cell.measured,
            "low": cell.measured - 2 * cell.standard_error,
            "high": cell.measured + 2 * cell.standard_error,
            "forecast": max(-1.0, min(1.0, cell.forecast)),
            "called": "valid" if cell.valid else "not valid",
            "task": cell.task,
        }
        for cell in cells
        if cell.scored
    ]
    largest = max(abs(row[name]) for row in rows for name in ("measured", "forecast"))
    scale = alt.Scale(type="symlog", constant=SMALLEST, domain=[-largest, largest])
    axis = alt.Axis(
        values=[s * 10.0**e for e in range(-4, 1) for s in (-1, 1)] + [0.0], format="~g", labelOverlap="greedy"
    )
    across = alt.X("measured:Q", scale=scale, axis=axis, title="measured: SGD's loss minus SGDM's")
    up = alt.Y("forecast:Q", scale=scale, axis=axis, title="forecast")
    called = alt.Color(
        "called:N", scale=alt.Scale(domain=["valid", "not valid"], range=["#0072B2", "#BBBBBB"]), title=None
    )
    base = alt.Chart(alt.Data(values=rows))
    line = alt.Chart(alt.Data(values=[{"at": -largest}, {"at": largest}]))
    chart = alt.layer(
        line.mark_line(color="#888888", strokeWidth=1).encode(alt.X("at:Q", scale=scale), alt.Y("at:Q", scale=scale)),
        base.mark_rule(opacity=0.5).encode(alt.X("low:Q", scale=scale), alt.X2("high:Q"), up, called),
        base.mark_point(filled=True, opacity=0.9, size=28).encode(across, up, called, alt.Shape("task:N", title=None)),
    ).properties(width=420, height=420)
    path.write_bytes(png(chart) if path.suffix == ".png" else svg(chart).encode())
