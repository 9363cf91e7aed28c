"""Both spectra of a probe: at which curvature the gradient lies, and at which its noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import altair as alt

from lightball.report.figures.axes import NumberAxis, linear, symlog_or_linear
from lightball.report.figures.data import brief, inline
from lightball.report.figures.series import MORE_COLOURS
from lightball.report.figures.style import NEUTRAL, POINT, Row, finished, legend_of, ordinal

if TYPE_CHECKING:
    from lightball.probe import SpectralMeasure

NODES = 24  # of the quadrature that is drawn
NEGLIGIBLE = 1e-4  # of the mass: not drawn
HEADROOM = 1.12  # above the tallest stem, for names
NARROW = 1e-3  # of the largest curvature: the axis is linear within, logarithmic beyond


def spectra_chart(
    gradient: SpectralMeasure, noise: SpectralMeasure, limits: Mapping[str, float], title: str | None = None
) -> alt.LayerChart:
    """Stems: the share of the squared gradient, and of the noise, at each curvature of the Gauss quadrature.

    Curvatures run from negative to positive on a symmetric logarithmic axis.

    Args:
        limits: curvatures to mark by a dashed line with its name, such as those up to which a rule is stable.
    """
    rows = [*_rows("gradient", gradient), *_rows("noise", noise)]
    largest = max((abs(row["curvature"]) for row in rows), default=1.0) or 1.0
    lines = [{"curvature": brief(float(h)), "name": name} for name, h in limits.items()]
    places = [*(row["curvature"] for row in rows), *(line["curvature"] for line in lines)]
    x = symlog_or_linear("curvature h", places, NARROW * largest, 8)
    y = linear("share of its mass", [0.0, *(HEADROOM * row["share"] for row in rows)])
    return finished(
        [*_limits(lines, x, y), *_stems(rows, x, y)],
        title=title,
        description="Shares of the squared gradient and of the gradient noise by curvature, as stems. "
        + " ".join(f"Marked: {name} at {h:.3g}." for name, h in limits.items()),
    )


def _rows(name: str, measure: SpectralMeasure) -> list[Row]:
    one = measure.compressed(NODES)
    total = one.mass or 1.0
    found = zip(one.nodes[0], one.weights[0] / total, strict=True)
    return [
        {"of": name, "curvature": brief(float(h)), "share": brief(float(share)), "none": 0.0}
        for h, share in found
        if share > NEGLIGIBLE
    ]


def _stems(rows: list[Row], x: NumberAxis, y: NumberAxis) -> list[alt.Chart]:
    names = ["gradient", "noise"]
    legend = legend_of(2, symbolStrokeWidth=0)
    colour = alt.Color("of:N", scale=ordinal(names, MORE_COLOURS[2:4]), legend=legend)
    shape = alt.Shape("of:N", scale=ordinal(names, ("circle", "diamond")), legend=legend)
    told = [
        alt.Tooltip("of:N", title=" "),
        alt.Tooltip("curvature:Q", title="curvature", format=".3~g"),
        alt.Tooltip("share:Q", title="share", format=".2~%"),
    ]
    stems, heads = (
        alt.Chart(inline(rows), name=name).encode(x=x.x("curvature"), color=colour) for name in ("stems", "heads")
    )
    return [
        stems.mark_rule(strokeWidth=2, opacity=0.6, tooltip=None).encode(y=y.y("none"), y2="share:Q"),
        heads.mark_point(filled=True, size=1.5 * POINT, opacity=1).encode(y=y.y("share"), shape=shape, tooltip=told),
    ]


def _limits(lines: list[Row], x: NumberAxis, y: NumberAxis) -> list[alt.Chart]:
    rules, names = (alt.Chart(inline([{**line, "top": y.high} for line in lines]), name=n) for n in ("limits", "names"))
    text = names.mark_text(align="right", baseline="top", dx=-4, dy=2, color="currentColor", tooltip=None)
    return [
        rules.mark_rule(color=NEUTRAL, strokeWidth=1.5, strokeDash=[6, 3], tooltip=None).encode(x=x.x("curvature")),
        text.encode(x=x.x("curvature"), y=y.y("top"), text="name:N"),
    ]
