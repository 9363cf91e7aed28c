"""Tables as the inline data of charts."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import altair as alt
import pyarrow as pa
from altair.utils.schemapi import debug_mode

from lightball.report.figures.style import Row

DIGITS = 5
HUGE = 1e270


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a table: numbers to 5 significant digits, numbers that are not finite as None."""
    return [{name: brief(value) for name, value in row.items()} for row in table.to_pylist()]


def brief(value: Any) -> Any:
    """A value for a chart: floats are rounded to 5 significant digits, NaN and infinities are None.

    What is so large or small that an axis could not be computed counts as infinite or zero.
    """
    if isinstance(value, list):
        return [brief(item) for item in value]
    if not isinstance(value, float):
        return value
    if not abs(value) < HUGE:
        return None
    return float(f"{value:.{DIGITS}g}") if abs(value) > 1 / HUGE else 0.0


def complete(rows: Iterable[Row], *columns: str) -> list[Row]:
    """The rows that have a value in each of the columns."""
    return [row for row in rows if all(row[column] is not None for column in columns)]


def inline(rows: Iterable[Row], *columns: str) -> alt.InlineData:
    """Rows as a chart's data, with only the columns that it draws."""
    values = [{column: row[column] for column in columns} if columns else row for row in rows]
    with unchecked():
        return alt.InlineData(values=values)


def unchecked() -> AbstractContextManager[None]:
    """Charts made inside are not compared with Vega-Lite's schema, which takes longer than all else; tests do it."""
    return debug_mode(False)


def batch_title(rows: list[Row]) -> str | None:
    """The title of a chart of one batch size."""
    return f"Batch size {rows[0]['batch_size']:,}" if rows else None


def signed(value: float | None) -> str:
    """A difference in words, with its sign: +0.064."""
    return "not known" if value is None else f"{value:+.3g}".replace("-", "−")
