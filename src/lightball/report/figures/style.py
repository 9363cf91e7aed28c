"""What all figures share: colours, sizes, fonts, and how a rule looks. Knows nothing of studies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

Row = dict[str, Any]

RULE_COLOURS = {"SGD": "#0072B2", "SGDM": "#D55E00"}  # Okabe–Ito blue and vermilion, on light and on dark
NEUTRAL = "#808080"  # shows on white and on black
INK = "#404040"  # text; the page recolours it by Vega's classes
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [1, 3])
SHAPES = ("triangle-up", "square", "diamond", "triangle-down", "triangle-right")  # not as many as dashes: more pairs
FONTS = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"
# Symbols of a legend: lines with their dashes, or filled shapes, of which the dashes must not fray the outline.
LEGEND_OF_LINES = {"symbolType": "stroke", "symbolSize": 200, "symbolStrokeWidth": 2}
LEGEND_OF_POINTS = {"symbolStrokeWidth": 0}
HEIGHT = 220
POINT = 40
BAND_OPACITY = 0.18
# Stroked, so that it stays thin at any size, unlike Vega's filled "cross".
CROSS = "M-0.7,-0.7L0.7,0.7M-0.7,0.7L0.7,-0.7"


@dataclass(frozen=True)
class RuleLook:
    """How lines and points of each label look: a colour for the rule, a dash and a shape for the momentum."""

    labels: tuple[str, ...]
    rules: tuple[str, ...]
    dashes: tuple[list[int], ...]
    shapes: tuple[str, ...]
    lines: bool = False  # whether the legend shows lines, not points

    @property
    def colours(self) -> tuple[str, ...]:
        return tuple(RULE_COLOURS[rule] for rule in self.rules)

    def colour(self) -> alt.Color:
        """The channel for colour, with the legend."""
        return alt.Color("label:N", scale=ordinal(self.labels, self.colours), legend=self._legend())

    def shape(self) -> alt.Shape:
        """The channel for the shape of points, which the legend shows."""
        return alt.Shape("label:N", scale=ordinal(self.labels, self.shapes), legend=self._legend())

    def dash(self) -> alt.StrokeDash:
        """The channel for the dash of lines."""
        return alt.StrokeDash("label:N", scale=ordinal(self.labels, self.dashes), legend=self._legend())

    def _legend(self) -> alt.Legend | None:
        symbols: dict[str, Any] = LEGEND_OF_LINES if self.lines else LEGEND_OF_POINTS
        return legend_of(len(self.labels), **symbols) if self.labels else None


def look_of(rows: Iterable[Row], *, lines: bool = False) -> RuleLook:
    """The look of the labels present: SGD first, then SGDM by momentum.

    Args:
        rows: with label, rule and momentum.
        lines: whether the legend shows lines instead of points.
    """
    known = sorted({(row["momentum"] or 0.0, row["rule"] != "SGD", row["rule"], row["label"]) for row in rows})
    momenta = sorted({momentum for momentum, is_sgdm, *_ in known if is_sgdm})
    ranks = [momenta.index(momentum) if momentum in momenta else 0 for momentum, *_ in known]
    rules = tuple(rule for _, _, rule, _ in known)
    return RuleLook(
        labels=tuple(label for *_, label in known),
        rules=rules,
        dashes=tuple(DASHES[rank % len(DASHES)] for rank in ranks),
        shapes=tuple(
            "circle" if rule == "SGD" else SHAPES[rank % len(SHAPES)] for rule, rank in zip(rules, ranks, strict=True)
        ),
        lines=lines,
    )


def legend_of(entries: int, **more: Any) -> alt.Legend:
    """A legend above the plot, in as many columns as fit a narrow page; its symbols are opaque, whatever the marks."""
    columns = entries if entries <= 3 else 2
    settings = {"orient": "top", "direction": "horizontal", "columns": columns, "symbolOpacity": 1, **more}
    return alt.Legend(title=None, **settings)


def ordinal(domain: Sequence[str], values: Sequence[Any]) -> alt.Scale:
    """The scale that gives each name its colour, shape or dash."""
    return alt.Scale(domain=list(domain), range=list(values))


def finished(
    layers: Sequence[alt.Chart], *, description: str, title: str | None = None, height: float = HEIGHT
) -> alt.LayerChart:
    """Layers as one chart that is as wide as its element, in the style of all figures."""
    named, datasets = _with_named_data(layers)
    chart = alt.layer(*named).properties(
        width="container",
        height=height,
        description=description,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        **({"title": title} if title else {}),
    )
    styled: alt.LayerChart = chart.configure(**_config())
    styled["datasets"] = datasets
    return styled


def _with_named_data(layers: Sequence[alt.Chart]) -> tuple[list[alt.Chart], dict[str, list[Row]]]:
    """Layers that name their rows, and the rows by name: Altair copies charts often, and rows with them."""
    named, datasets = [], dict[str, list[Row]]()
    for layer in layers:
        rows = layer.data.values
        name = next((name for name, known in datasets.items() if known == rows), f"rows_{len(datasets)}")
        datasets[name] = rows
        named.append(layer.copy(deep=False))
        named[-1].data = alt.NamedData(name=name)
    return named, datasets


def _config() -> dict[str, Any]:
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    lines = {"domainColor": NEUTRAL, "tickColor": NEUTRAL, "gridColor": "#e6e6e6", "tickSize": 4}
    axis = {**text, **lines, "labelSeparation": 5, "labelLimit": 240, "titlePadding": 6}
    return {
        "background": "transparent",
        "font": FONTS,
        "padding": 4,
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            **{k: v for k, v in text.items() if k.startswith("label")},
            "labelLimit": 240,
            "offset": 6,
        },
        "title": {"color": INK, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 8},
        "bar": {"color": NEUTRAL},
        "rule": {"color": NEUTRAL},
    }
