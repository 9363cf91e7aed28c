"""Figures as files: the same chart at a fixed width on white."""

from __future__ import annotations

from typing import Any, Protocol

import altair as alt
import vl_convert

EXPORT_WIDTH = 480
SCALE = 2


class Chart(Protocol):
    """What Altair's charts have in common."""

    def to_dict(self) -> dict[str, Any]: ...


def for_export(chart: Chart, width: int = EXPORT_WIDTH) -> dict[str, Any]:
    """The specification of a chart, ``width`` pixels wide with its axes, on white."""
    return {**chart.to_dict(), "width": width, "background": "white"}


def png(chart: Chart) -> bytes:
    """The chart as PNG, two pixels for one."""
    return vl_convert.vegalite_to_png(for_export(chart), vl_version=_version(), scale=SCALE)


def svg(chart: Chart) -> str:
    """The chart as SVG."""
    return vl_convert.vegalite_to_svg(for_export(chart), vl_version=_version())


def _version() -> str:
    """Of Vega-Lite, the one that Altair writes."""
    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
