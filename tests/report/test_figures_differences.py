"""Paired differences: signs, units, verdicts, and the choice of scale."""

from __future__ import annotations

from itertools import pairwise

import pytest
from figure_samples import (
    BLUE,
    VERMILION,
    colours,
    difference,
    differences,
    drawn,
    marks,
    place,
    placed_texts,
    rows_of,
    scales,
    texts,
)

from lightball.report.figures import paired_differences, value_by_batch_size

VERDICTS = differences(
    [
        difference(8, 0.001, 0.002),
        difference(32, 0.05, 0.02, verdict="helps"),
        difference(128, -0.05, 0.02, verdict="hurts"),
        difference(512, 0.01, 0.03, verdict="undecided", pairs_needed=240),
    ]
)


def test_values_are_in_units_of_their_own_margin_and_keep_their_sign() -> None:
    table = differences([difference(8, 0.01, 0.002), difference(32, -0.03, 0.01, margin=0.01)])
    rows = rows_of(paired_differences(table, "train_loss"), "means")
    assert [row["mean"] for row in rows] == [0.5, -3.0]
    assert [(row["low"], row["high"]) for row in rows] == [(0.4, 0.6), (-4.0, -2.0)]


def test_what_favours_momentum_is_to_the_right_and_batch_sizes_go_down() -> None:
    table = differences([difference(8, -0.01), difference(32, 0.01), difference(128, 0.02)])
    places = [place(mark) for mark in marks(paired_differences(table, "train_loss"), "means")]
    assert places == sorted(places)
    assert [y for _, y in places] == sorted(y for _, y in places)


def test_a_mean_at_the_margin_is_at_the_edge_of_the_band() -> None:
    chart = paired_differences(differences([difference(8, 0.02), difference(32, -0.02)]), "train_loss")
    right, left = (place(mark)[0] for mark in marks(chart, "means"))
    (band,) = marks(chart, "margin")
    corners = band.get("d", "").replace("M", " ").replace("h", " ").replace("v", " ").replace("Z", " ").split()
    x, _ = corners[0].split(",")
    assert float(x) == pytest.approx(left, abs=0.01)
    assert float(x) + float(corners[1]) == pytest.approx(right, abs=0.01)


def test_each_row_has_its_verdict_beside_it_and_in_its_shape() -> None:
    chart = paired_differences(VERDICTS, "train_loss")
    labels = placed_texts(chart, "axis-label")
    means = marks(chart, "means")
    sizes, verdicts = ("8", "32", "128", "512"), ("no value", "helps", "hurts", "undecided")
    for size, verdict, mark in zip(sizes, verdicts, means, strict=True):
        beside = {label for label, down in labels if 0 < down - place(mark)[1] < 8}
        assert beside & {*sizes, *verdicts} == {size, verdict}
    assert "does not matter" in texts(chart, "axis-label")
    assert len({mark.get("d") for mark in means}) == 4
    assert [mark.get("fill") for mark in means] == ["#808080", "#009E73", "#CC79A7", None]
    assert len(marks(chart, "intervals")) == 4


@pytest.mark.parametrize("figure", [paired_differences, value_by_batch_size])
def test_the_colours_of_the_rules_are_not_used(figure) -> None:
    used = colours(figure(VERDICTS, "train_loss"))
    assert not used & {BLUE, VERMILION}
    assert {"#009E73", "#CC79A7"} <= used


@pytest.mark.parametrize(("mean", "kind"), [(0.1, "linear"), (1.0, "symlog"), (-1e4, "symlog")])
def test_the_axis_is_symlog_where_values_are_many_margins(mean: float, kind: str) -> None:
    table = differences([difference(8, 0.0), difference(32, mean)])
    assert scales(paired_differences(table, "train_loss"), "x") == {kind}
    assert scales(value_by_batch_size(table, "train_loss"), "y") == {kind}


def test_thirty_six_rows_have_a_name_and_a_line_each() -> None:
    sizes, momenta = [2**k for k in range(3, 15)], (0.5, 0.9, 0.99)
    table = differences([difference(size, 0.01, momentum=beta) for size in sizes for beta in momenta])
    chart = paired_differences(table, "train_loss")
    names = texts(chart, "axis-label")
    assert sum(name.endswith("β = 0.99") for name in names) == 12
    assert "16,384 · β = 0.5" in names
    heights = sorted(place(mark)[1] for mark in marks(chart, "means"))
    assert all(below - above >= 19.9 for above, below in pairwise(heights))
    assert len(heights) == 36
    assert float(drawn(chart).get("height")) > 36 * 20


def test_tooltips_tell_the_measures_own_unit() -> None:
    row = rows_of(paired_differences(differences([difference(8, 0.01, 0.002)]), "train_loss"), "means")[0]
    assert (row["value"], row["interval"], row["limit"]) == ("+0.01", "+0.008 to +0.012", "0.02")
    accuracy = differences([difference(8, -0.0072, 0.002, measure="test_accuracy", margin=0.005)])
    row = rows_of(paired_differences(accuracy, "test_accuracy"), "means")[0]
    assert (row["value"], row["interval"], row["limit"]) == ("−0.72 points", "−0.92 to −0.52", "0.5")
    assert row["mean"] == -1.44
    undecided = rows_of(paired_differences(VERDICTS, "train_loss"), "means")[3]
    assert undecided["evidence"] == "16, 240 needed"


def test_values_by_batch_size_are_in_the_measures_own_unit() -> None:
    chart = value_by_batch_size(VERDICTS, "train_loss")
    assert [row["mean"] for row in rows_of(chart, "means")] == [0.001, 0.05, -0.05, 0.01]
    accuracy = differences([difference(8, 0.0072, 0.002, measure="test_accuracy", margin=0.005)])
    chart = value_by_batch_size(accuracy, "test_accuracy")
    assert rows_of(chart, "means")[0]["mean"] == 0.72
    assert "value of momentum (points)" in texts(chart, "axis-title")
    score = differences([difference(8, 2.0, 0.2, measure="test_accuracy", margin=1.5)])
    assert rows_of(value_by_batch_size(score, "test_accuracy"), "means")[0]["mean"] == 2.0


def test_margins_are_bands_that_meet_halfway() -> None:
    table = differences([difference(8, 0.0), difference(32, 0.0, margin=0.04), difference(128, 0.0)])
    bands = rows_of(value_by_batch_size(table, "train_loss"), "margins")
    assert [(band["at"], band["end"]) for band in bands] == [(4, 16), (16, 64), (64, 256)]
    assert [(band["low"], band["high"]) for band in bands] == [(-0.02, 0.02), (-0.04, 0.04), (-0.02, 0.02)]


def test_one_batch_size_has_a_band_and_a_point_in_the_middle() -> None:
    chart = value_by_batch_size(differences([difference(32, 0.01, 0.005)]), "train_loss")
    (band,), (point,) = marks(chart, "margins"), marks(chart, "means")
    start, width = float(band.get("d", "")[1:].split(",")[0]), float(band.get("d", "").split("h")[1].split("v")[0])
    assert place(point)[0] == pytest.approx(start + width / 2, abs=0.01)
    assert texts(chart, "axis-label").count("32") == 1


def test_several_momenta_have_a_line_each_and_points_side_by_side() -> None:
    table = differences([difference(size, 0.01, momentum=beta) for size in (8, 32) for beta in (0.5, 0.9)])
    chart = value_by_batch_size(table, "train_loss")
    assert len(marks(chart, "lines")) == 2
    assert len({line.get("stroke-dasharray") for line in marks(chart, "lines")}) == 2
    assert len({place(mark)[0] for mark in marks(chart, "means")}) == 4
    assert {"β = 0.5", "β = 0.9"} <= set(texts(chart, "legend-label"))


@pytest.mark.parametrize("figure", [paired_differences, value_by_batch_size])
def test_what_is_not_known_is_left_out(figure) -> None:
    table = differences([difference(8, None), difference(32, 0.01, margin=None), difference(128, 0.01, 0.005)])
    chart = figure(table, "train_loss")
    assert (
        len(marks(chart, "intervals")) == len(rows_of(chart, "intervals")) == (1 if figure is paired_differences else 2)
    )
    assert len(texts(chart, "axis-label")) > 5
    infinite = differences([difference(8, 0.01, float("inf"), verdict="undecided")])
    assert len(marks(figure(infinite, "train_loss"), "means")) == 1
    assert marks(figure(infinite, "train_loss"), "intervals") == []


@pytest.mark.parametrize("figure", [paired_differences, value_by_batch_size])
def test_an_empty_table_still_draws(figure) -> None:
    chart = figure(differences([]), "test_accuracy")
    assert marks(chart, "means") == []
    assert texts(chart, "title-text") == ["Test accuracy"]


@pytest.mark.parametrize("figure", [paired_differences, value_by_batch_size])
def test_only_the_measure_asked_for_is_drawn(figure) -> None:
    table = differences([difference(8, 0.01), difference(8, 0.002, measure="test_accuracy", margin=0.005)])
    assert len(rows_of(figure(table, "train_loss"), "means")) == 1


def test_a_reader_who_hears_the_figure_learns_the_verdicts() -> None:
    assert "helps at 32 (β = 0.9)" in paired_differences(VERDICTS, "train_loss").to_dict()["description"]
