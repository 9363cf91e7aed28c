"""The map of the value of momentum and the spectra: what is drawn, where, and how it looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from figure_samples import colours, finite, marks, rows_of, scales, spec, texts
from page_measures import ODD_TEXTS
from page_samples import OpenPage

from lightball.probe.measure import SpectralMeasure
from lightball.report.advice.heat_map import heat_map
from lightball.report.advice.spectra import spectra_chart
from lightball.report.page import Figure, Page, Section

RATES, SIZES = [0.125, 0.25, 0.5], [16, 64, 256, 1024]
GREEN, PURPLE, GREY = "#009E73", "#CC79A7", "#808080"


def a_map(**changes: Any) -> Any:
    """Helps at the smallest batch, hurts at the largest; the largest rate is not valid."""
    value = np.array([[0.001, 0.0004, 0.0, -0.0001], [0.004, 0.001, 0.0, -0.003], [np.inf, 0.5, -1.0, 2.0]])
    valid = np.array([[True] * 4, [True] * 4, [False] * 4])
    shape = {"effective_lrs": np.array(RATES), "batch_sizes": np.array(SIZES), "value": value, "valid": valid}
    made = {**shape, **changes}
    return SimpleNamespace(bound=np.where(made["valid"], np.abs(made["value"]), np.inf), **made)


def test_cells_show_verdict_and_value_and_only_where_they_are_valid() -> None:
    made = heat_map(a_map(), 0.002, (0.25, 64))
    kinds = [row["kind"] for row in rows_of(made, "cells")]
    assert kinds == ["no value"] * 4 + ["helps", "no value", "no value", "hurts"]
    assert len(marks(made, "cells")) == 8
    assert texts(made, "mark") == ["+.001", "+.0004", "0", "−.0001", "+.004", "+.001", "0", "−.003"]
    assert texts(made, "legend-label") == ["helps", "no value", "hurts"]
    assert {GREEN, PURPLE, GREY} <= colours(made)
    assert texts(made, "axis-label")[:4] == ["16", "64", "256", "1,024"]
    assert finite(spec(made))


def test_cells_whose_size_is_known_to_be_small_are_of_no_value() -> None:
    """Two effects nearly cancel: the sign is not known, but neither of them matters."""
    one = a_map(valid=np.zeros((3, 4), bool))
    one.bound = np.where(np.abs(one.value) < 0.002, 0.0015, np.inf)
    made = heat_map(one, 0.002, (0.25, 64))
    assert [row["kind"] for row in rows_of(made, "cells")] == ["no value"] * 6


def test_cells_that_are_not_valid_are_hatched_within_themselves() -> None:
    made = heat_map(a_map(), 0.002, (0.25, 64))
    lines = rows_of(made, "hatches")
    assert len(lines) == len(marks(made, "hatches")) == 3 * 4
    for line in lines:
        cell = round((line["left"] + line["right"]) / 2)
        assert cell - 0.5 <= line["left"] < line["right"] <= cell + 0.5
        assert 1.5 <= line["low"] < line["high"] <= 2.5  # the third rate
    told = [row["told"] for row in rows_of(made, "places")[-4:]]
    assert told == ["diverges", "+0.5", "−1", "+2"]
    assert {row["valid"] for row in rows_of(made, "places")[-4:]} == {"no"}


def test_the_setting_is_framed_and_nothing_else() -> None:
    (framed,) = rows_of(heat_map(a_map(), 0.002, (0.25, 64)), "setting")
    assert (framed["rate"], framed["size"]) == (0.25, 64)
    assert len(marks(heat_map(a_map(), 0.002, (0.25, 64)), "setting")) == 1
    assert rows_of(heat_map(a_map(), 0.002, (0.3, 64)), "setting") == []


def test_deeper_means_more_margins() -> None:
    values = np.array([[0.002, 0.003, 0.01, 0.1]])
    made = heat_map(a_map(effective_lrs=np.array([0.1]), value=values, valid=values > 0), 0.002, (0.1, 64))
    depths = [row["opacity"] for row in rows_of(made, "cells")]
    assert depths == sorted(depths)
    assert len(set(depths)) == 4
    assert depths[-1] <= 0.6  # text above it must read in both schemes


def test_nothing_valid_is_a_map_of_hatches() -> None:
    made = heat_map(a_map(valid=np.zeros((3, 4), bool)), 0.002, (0.25, 64))
    assert marks(made, "cells") == []
    assert len(marks(made, "hatches")) == 36
    assert "none is valid" in spec(made)["description"]


def measure(*pairs: tuple[float, float]) -> SpectralMeasure:
    nodes, weights = zip(*pairs, strict=True)
    return SpectralMeasure(np.array([nodes]), np.array([weights]))


def test_spectra_are_shares_at_curvatures_of_either_sign() -> None:
    made = spectra_chart(measure((-0.5, 1.0), (4.0, 3.0)), measure((0.01, 5.0), (2.0, 5.0)), {"SGD": 2.0, "SGDM": 38.0})
    rows = rows_of(made, "heads")
    assert [(row["of"], row["share"]) for row in rows] == [
        ("gradient", 0.25),
        ("gradient", 0.75),
        ("noise", 0.5),
        ("noise", 0.5),
    ]
    assert [row["curvature"] for row in rows] == pytest.approx([-0.5, 4.0, 0.01, 2.0])
    assert scales(made, "x") == {"symlog"}
    assert len(marks(made, "stems")) == 4
    assert [row["name"] for row in rows_of(made, "limits")] == ["SGD", "SGDM"]
    assert texts(made, "mark") == ["SGD", "SGDM"]
    assert texts(made, "legend-label") == ["gradient", "noise"]


def test_a_spectrum_without_mass_is_empty() -> None:
    nothing = measure((0.0, 0.0))
    assert rows_of(spectra_chart(nothing, nothing, {}), "heads") == []
    assert finite(spec(spectra_chart(nothing, nothing, {"SGD": 2.0})))


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_cut_or_covered(width: int, visit: OpenPage) -> None:
    value = -0.00012 * np.ones((9, 7))
    wide = a_map(
        effective_lrs=np.array([2.0**k for k in range(-6, 3)]),
        batch_sizes=np.array([2**k for k in range(3, 10)]),
        value=value,
        valid=value < 0,
    )
    some = measure(*((10.0**k, 1.0) for k in range(-4, 2)), (-3.0, 0.5))
    figures = (
        Figure("map", heat_map(wide, 1e-5, (0.25, 64))),
        Figure("spectra", spectra_chart(some, some, {"SGD": 2.0})),
    )
    seen = visit(Page("t", "a", sections=(Section("s", parts=figures),)), width=width)
    assert seen.complaints == []
    assert seen.tab.evaluate(ODD_TEXTS) == []
