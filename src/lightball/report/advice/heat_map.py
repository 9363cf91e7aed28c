"""The value of momentum over learning rate and batch size, as a map of cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import altair as alt

from lightball.report.figures.axes import lookup
from lightball.report.figures.data import brief, inline, signed
from lightball.report.figures.style import NEUTRAL, Row, finished, legend_of, ordinal
from lightball.report.figures.verdicts import COLOURS

if TYPE_CHECKING:
    from lightball.forecast import ValueMap

CELL = 30  # pixels, upwards
HATCHES = 3  # lines across a cell that cannot be trusted
FAINT, FULL = 0.25, 0.6  # opacity of a cell at the margin, and at so many margins and beyond:
FULL_AT = 30.0
WITHIN = 0.15  # opacity of a cell within the margin
KINDS = ("helps", "no value", "hurts")


def heat_map(found: ValueMap, margin: float, setting: tuple[float, int]) -> alt.LayerChart:
    """Cells in the colour of their verdict, the deeper the more margins, with the loss that momentum saves in them.

    Cells where the forecast is not valid are hatched and bear no colour; ``setting``, an effective learning rate and a
    batch size of the map, is framed. Colours are seen through to the page, so that they read on light and dark.
    """
    rows = [
        _row(found, margin, across, up)
        for up, across in product(*map(range, (len(found.effective_lrs), len(found.batch_sizes))))
    ]
    x = _axis("batch size (examples)", [f"{size:,}" for size in found.batch_sizes])
    y = _axis("effective learning rate η", [f"{rate:.2g}" for rate in found.effective_lrs])
    chosen = [row for row in rows if math.isclose(row["rate"], setting[0], rel_tol=1e-3) and row["size"] == setting[1]]
    return finished(
        [*_cells(rows, x, y), _hatches(rows, x, y), _numbers(rows, x, y), _frame(chosen, x, y)],
        description=f"Value of momentum, SGD's loss minus SGDM's, over batch size and effective learning rate. "
        f"{_in_words(rows)}",
        height=CELL * max(1, len(found.effective_lrs)),
    )


def _row(found: ValueMap, margin: float, across: int, up: int) -> Row:
    """A cell: its place, its value, and how it looks."""
    value = float(found.value[up][across])
    known = math.isfinite(value) and bool(found.valid[up][across] or found.bound[up][across] <= margin)
    kind = "no value" if not known or abs(value) <= margin else "helps" if value > 0 else "hurts"
    depth = min(1.0, math.log(max(abs(value) / margin, 1.0)) / math.log(FULL_AT)) if known else 0.0
    return {
        "left": across - 0.5,
        "right": across + 0.5,
        "low": up - 0.5,
        "high": up + 0.5,
        "x": across,
        "y": up,
        "rate": brief(float(found.effective_lrs[up])),
        "size": int(found.batch_sizes[across]),
        "kind": kind if known else "",
        "opacity": WITHIN if kind == "no value" else round(FAINT + (FULL - FAINT) * depth, 3),
        "text": _short(value, margin) if known else "",
        "told": signed(value) if math.isfinite(value) else "diverges",
        "valid": "yes" if known else "no",
    }


def _short(value: float, margin: float) -> str:
    """A value to one digit, in at most six characters; nothing where it is far within the margin."""
    if abs(value) < 0.05 * margin:
        return "0"
    text = f"{value:+.3f}" if abs(value) >= 0.1 else f"{value:+.1g}"
    text = f"{value:+.2f}" if abs(value) >= 1 else text
    return text.replace("-", "−").replace("0.", ".", 1)


def _axis(title: str, labels: Sequence[str]) -> dict[str, Any]:
    """Cells side by side, one for each label."""
    places = list(range(len(labels)))
    return {
        "scale": alt.Scale(domain=[-0.5, len(labels) - 0.5], nice=False, zero=False),
        "axis": alt.Axis(
            title=title,
            values=places,
            labelExpr=lookup(places, list(labels)),
            grid=False,
            domain=False,
            ticks=False,
            labelOverlap="greedy",
        ),
    }


def _cells(rows: list[Row], x: dict[str, Any], y: dict[str, Any]) -> list[alt.Chart]:
    names = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    legend = legend_of(len(names), symbolType="square", symbolStrokeWidth=0) if names else None
    chart = alt.Chart(inline([row for row in rows if row["kind"]]), name="cells").mark_rect(strokeWidth=0, tooltip=None)
    coloured = chart.encode(
        **_over(x, y),
        color=alt.Color("kind:N", scale=ordinal(names, [COLOURS[name] for name in names]), legend=legend),
        opacity=alt.Opacity("opacity:Q", scale=None, legend=None),
    )
    told = [
        alt.Tooltip("rate:Q", title="η", format=".3~g"),
        alt.Tooltip("size:Q", title="batch size"),
        alt.Tooltip("told:N", title="value of momentum"),
        alt.Tooltip("valid:N", title="valid"),
    ]
    # Unseen, above the colours: every cell can be pointed at.
    pointed = alt.Chart(inline(rows), name="places").mark_rect(opacity=0).encode(**_over(x, y), tooltip=told)
    return [coloured, pointed]


def _over(x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    """The channels of what covers a cell, or goes from its one corner to the other."""
    return {"x": alt.X("left:Q", **x), "x2": "right:Q", "y": alt.Y("low:Q", **y), "y2": "high:Q"}


def _hatches(rows: list[Row], x: dict[str, Any], y: dict[str, Any]) -> alt.Chart:
    """Slanted lines over the cells that are not valid."""
    lines = [
        {
            "left": row["left"] + max(0.0, shift),
            "right": row["right"] + min(0.0, shift),
            "low": row["low"] + max(0.0, -shift),
            "high": row["high"] + min(0.0, -shift),
        }
        for row in rows
        if row["valid"] == "no"
        for shift in [(k - (HATCHES - 1) / 2) / ((HATCHES + 1) / 2) for k in range(HATCHES)]
    ]
    chart = alt.Chart(inline(lines), name="hatches").mark_rule(color=NEUTRAL, opacity=0.45, strokeWidth=1, tooltip=None)
    drawn: alt.Chart = chart.encode(**_over(x, y))
    return drawn


def _numbers(rows: list[Row], x: dict[str, Any], y: dict[str, Any]) -> alt.Chart:
    chart = alt.Chart(inline([row for row in rows if row["text"]]), name="numbers")
    text = chart.mark_text(fontSize=10, color="currentColor", tooltip=None)
    drawn: alt.Chart = text.encode(x=alt.X("x:Q", **x), y=alt.Y("y:Q", **y), text="text:N")
    return drawn


def _frame(chosen: list[Row], x: dict[str, Any], y: dict[str, Any]) -> alt.Chart:
    """Around the cell that was asked for."""
    chart = alt.Chart(inline(chosen), name="setting").mark_rect(
        filled=False, stroke="currentColor", strokeWidth=2, tooltip=None
    )
    drawn: alt.Chart = chart.encode(**_over(x, y))
    return drawn


def _in_words(rows: list[Row]) -> str:
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in KINDS}
    known = ", ".join(f"{count} cells {kind}" for kind, count in counts.items() if count)
    return (
        f"Of {len(rows)} cells: {known or 'none is valid'}; {sum(row['valid'] == 'no' for row in rows)} are not valid."
    )
