"""Lines and points on shared axes: every value is drawn, in its colour, and legends say what it is."""

from __future__ import annotations

import pytest
from figure_samples import BLUE, VERMILION, colours, finite, marks, rows_of, scales, spec, texts
from page_measures import ODD_TEXTS
from page_samples import OpenPage

from lightball.report.figures.series import Series, series_chart
from lightball.report.page import Figure, Page, Section

X = [0.01, 0.02, 0.04]


def chart(*series: Series, **options):
    return series_chart(series, **{"x": "rate", "y": "error", "description": "errors", "log_x": True, **options})


def test_points_have_bars_and_lines_have_bands() -> None:
    measured = Series("SGD", X, [1, 2, 3], [0.5, 1.5, 2.5], [1.5, 2.5, 3.5], colour="SGD", mark="points")
    proven = Series("SGDM", X, [1, 2, 3], [0.9, 1.9, 2.9], [1.1, 2.1, 3.1], colour="SGDM")
    made = chart(measured, proven)
    assert len(marks(made, "points_points_0")) == len(marks(made, "bars_points_0")) == 3
    assert len(marks(made, "lines_line_1")) == len(marks(made, "bands_line_1")) == 1
    assert colours(made) == {BLUE, VERMILION}
    assert texts(made, "legend-label") == ["SGD", "SGDM"]


def test_hollow_points_are_drawn_as_rings_beside_the_others() -> None:
    made = chart(Series("SGD", X, [1, 2, 3], mark="joined", hollow=[True, False, False]))
    (ring,) = marks(made, "hollow_joined_0")
    assert ring.get("fill") in (None, "transparent")  # the document fills nothing by default
    assert ring.get("stroke")
    assert len(marks(made, "points_joined_0")) == 2
    assert len(marks(made, "lines_joined_0")) == 1


def test_a_name_with_points_and_a_line_has_one_entry_and_one_colour() -> None:
    made = chart(
        Series("β = 0.9", X, [1, 2, 3], colour=0, mark="points"),
        Series("β = 0.9", X, [1.1, 2.1, 3.1], colour=1, mark="line"),
        Series("β = 0", X, [2, 2, 2], colour=1),
    )
    assert texts(made, "legend-label") == ["β = 0.9", "β = 0"]
    assert len(marks(made, "points_points_0")) == 3
    assert len(marks(made, "lines_line_0")) == 1
    assert colours(made) == {BLUE, VERMILION}


def test_one_series_needs_no_legend() -> None:
    assert texts(chart(Series("SGD", X, [1, 2, 3])), "legend-label") == []


@pytest.mark.parametrize("smallest", [1e-4, 0.0, -1.0])
def test_what_a_logarithmic_axis_cannot_show_is_left_out(smallest: float) -> None:
    made = chart(Series("SGD", X, [smallest, 0.1, 1.0], mark="points"), log_y=True)
    assert scales(made, "y") == {"log"}
    assert len(marks(made, "points_points_0")) == 2 + (smallest > 0)


def test_bars_that_leave_a_logarithmic_axis_end_at_its_edge() -> None:
    made = chart(Series("SGD", X, [0.1, 0.1, 1.0], [-0.1, 0.05, 0.9], [0.3, 0.2, 1.1], mark="points"), log_y=True)
    lows = [row["low"] for row in rows_of(made, "bars_points_0")]
    assert 0 < lows[0] < lows[1] < lows[2]


def test_values_that_are_not_there_or_not_finite_are_left_out() -> None:
    made = chart(Series("SGD", X, [None, float("inf"), 2.0], mark="points"))
    assert len(marks(made, "points_points_0")) == 1
    assert finite(spec(made))


def test_a_level_is_marked_and_lies_on_the_axis() -> None:
    made = chart(Series("SGD", X, [5, 6, 7]), level=1)
    assert len(marks(made, "level")) == 1
    assert rows_of(made, "level") == [{"level": 1}]
    (low, _) = spec(made)["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low < 1


@pytest.mark.parametrize("width", [400, 1200])
def test_long_names_are_not_cut_in_the_legend(width: int, visit: OpenPage) -> None:
    names = ("descent (size)", "noise-induced, measured", "curvature-induced, measured")
    made = chart(*(Series(name, X, [1, 2, 3], colour=i, mark="joined") for i, name in enumerate(names)))
    page = Page("t", "a", sections=(Section("s", parts=(Figure("f", made),)),))
    tab = visit(page, width=width).tab
    assert tab.evaluate(ODD_TEXTS) == []
    shown = tab.eval_on_selector_all(".role-legend-label text", "all => all.map((text) => text.textContent)")
    assert shown == list(names)


def test_nothing_to_draw_is_empty_axes() -> None:
    assert spec(chart(Series("SGD", [], []), log_y=True))
