"""Loss and accuracy by rate: what is marked, and where."""

from __future__ import annotations

import math

import pytest
from figure_samples import BLUE, VERMILION, colours, layer, marks, place, rate, rates, rows_of, scales, texts, two_rules

from lightball.report.figures import accuracy_by_rate, loss_by_rate


def test_points_crosses_rings_lines_and_bands_are_drawn() -> None:
    chart = loss_by_rate(two_rules())
    assert len(marks(chart, "means")) == len(marks(chart, "bands")) == 2
    assert len(marks(chart, "points")) == 4
    assert len(marks(chart, "failures")) == 2
    assert len(marks(chart, "selected")) == 2
    assert marks(chart, "bars") == marks(chart, "failures_without_value") == []


def test_marks_lie_on_their_means_and_crosses_are_not_points() -> None:
    chart = loss_by_rate(two_rules())
    assert [row["effective_lr"] for row in rows_of(chart, "failures")] == [0.8, 0.8]
    assert {row["failures"] for row in rows_of(chart, "failures")} == {"3 of 16", "16 of 16"}
    assert {row["effective_lr"] for row in rows_of(chart, "selected")} == {0.4}
    rings = {place(ring) for ring in marks(chart, "selected")}
    assert rings <= {place(point) for point in marks(chart, "points")}
    above = {ring.get("stroke"): place(ring)[1] for ring in marks(chart, "selected")}
    assert above[BLUE] < above[VERMILION]  # 0.05 is above 0.04, and down is positive


def test_the_rules_of_two_rules_at_one_rate_take_turns() -> None:
    chart = loss_by_rate(two_rules())
    (first,), (second,) = (marks(chart, f"largest_without_failures_{turn}") for turn in (0, 1))
    assert place(first)[0] == place(second)[0]
    assert (first.get("stroke"), second.get("stroke")) == (BLUE, VERMILION)
    dash = {mark.get("stroke-dasharray") for mark in (first, second)}
    assert dash == {"5,5"}
    assert float(second.get("stroke-dashoffset")) - float(first.get("stroke-dashoffset") or 0) == -5


def test_only_the_two_colours_of_the_rules_are_used() -> None:
    assert colours(loss_by_rate(two_rules())) == {BLUE, VERMILION}
    several = rates([rate(beta, eta, 0.1) for beta in (0.0, 0.5, 0.9, 0.99) for eta in (0.1, 0.2)])
    assert colours(loss_by_rate(several)) == {BLUE, VERMILION}


def test_several_momenta_are_told_apart_by_dash_and_shape() -> None:
    several = rates([rate(beta, eta, 0.1) for beta in (0.0, 0.5, 0.9) for eta in (0.1, 0.2)])
    chart = loss_by_rate(several)
    assert len({line.get("stroke-dasharray") for line in marks(chart, "means")}) >= 2
    assert len({point.get("d") for point in marks(chart, "points")}) == 3
    assert texts(chart, "legend-label") == ["SGD", "SGDM β = 0.5", "SGDM β = 0.9"]


@pytest.mark.parametrize(("low", "kind"), [(0.01, "log"), (0.0, "linear"), (-0.1, "linear")])
def test_losses_are_on_a_log_axis_as_long_as_all_are_positive(low: float, kind: str) -> None:
    table = rates([rate(0.0, 0.1, 0.5), rate(0.0, 0.2, 0.3, train_loss_low=low)])
    assert scales(loss_by_rate(table), "y") == {kind}
    assert scales(loss_by_rate(table), "x") == {"log"}


def test_rates_without_a_value_are_left_out_and_their_failures_are_at_the_top() -> None:
    chart = loss_by_rate(rates([rate(0.0, 0.1, 0.5), rate(0.0, 0.2, 0.3), rate(0.0, 0.4, None, failed=16)]))
    assert len(marks(chart, "points")) == 2
    (cross,) = marks(chart, "failures_without_value")
    assert place(cross)[1] == 8


def test_a_table_without_any_value_still_draws() -> None:
    table = rates([rate(beta, eta, None, failed=16) for beta in (0.0, 0.9) for eta in (0.1, 0.2)])
    for chart in (loss_by_rate(table), accuracy_by_rate(table)):
        assert len(marks(chart, "failures_without_value")) == 4
        assert "effective learning rate η" in texts(chart, "axis-title")
    assert texts(accuracy_by_rate(table), "axis-title")[-1] == "test accuracy (%)"
    assert {"0", "100"} <= set(texts(accuracy_by_rate(table), "axis-label"))


def test_an_empty_table_still_draws() -> None:
    for chart in (loss_by_rate(rates([])), accuracy_by_rate(rates([]))):
        assert marks(chart, "points") == []
        assert texts(chart, "legend-label") == []
        assert len(texts(chart, "axis-title")) == 2


def test_a_rule_with_one_rate_shows_its_range_as_a_bar() -> None:
    chart = loss_by_rate(rates([rate(0.0, 0.1, 0.5), rate(0.9, 0.1, 0.5), rate(0.9, 0.2, 0.3)]))
    assert [row["label"] for row in rows_of(chart, "bars")] == ["SGD"]


def test_accuracies_are_in_percent_where_they_are_shares() -> None:
    share = accuracy_by_rate(two_rules())
    assert {row["value"] for row in rows_of(share, "means")} == {95.0}
    assert "test accuracy (%)" in texts(share, "axis-title")
    other = accuracy_by_rate(rates([rate(0.0, 0.1, 0.5, test_accuracy=53.0), rate(0.0, 0.2, 0.5)]))
    assert [row["value"] for row in rows_of(other, "means")] == [53.0, 0.95]
    assert "test accuracy" in texts(other, "axis-title")


@pytest.mark.parametrize("loss", [1e12, 1e-9, math.nan, math.inf])
def test_extreme_losses_are_drawn_or_left_out(loss: float) -> None:
    chart = loss_by_rate(rates([rate(0.0, 0.1, 0.5), rate(0.0, 0.2, loss)]))
    assert len(rows_of(chart, "points")) == (2 if math.isfinite(loss) else 1)
    assert len(marks(chart, "points")) == len(rows_of(chart, "points"))


def test_the_title_names_the_batch_size_and_the_tooltip_the_failures() -> None:
    chart = loss_by_rate(two_rules())
    assert texts(chart, "title-text") == ["Batch size 32"]
    assert {"field": "failures", "title": "failed", "type": "nominal"} in layer(chart, "failures")["encoding"][
        "tooltip"
    ]
