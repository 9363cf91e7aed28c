"""Training curves with their single pairs, epochs to the same loss, and the export of figures."""

from __future__ import annotations

import json
import struct

import pytest
import vl_convert
from figure_samples import (
    BLUE,
    VERMILION,
    colours,
    curves,
    difference,
    differences,
    drawn,
    finite,
    layer,
    marks,
    pairs,
    rates,
    rows_of,
    scales,
    spec,
    speeds,
    texts,
    two_rules,
)

from lightball.report.figures import (
    accuracy_by_rate,
    epochs_to_same_loss,
    for_export,
    loss_by_rate,
    paired_differences,
    png,
    svg,
    training_curves,
    value_by_batch_size,
)
from lightball.report.figures.data import brief


def all_figures(empty: bool = False):
    made = (
        loss_by_rate,
        accuracy_by_rate,
        lambda table: paired_differences(
            differences([]) if empty else differences([difference(8, 0.1, 0.3)]), "train_loss"
        ),
        lambda table: value_by_batch_size(
            differences([]) if empty else differences([difference(8, 0.1)]), "train_loss"
        ),
        lambda table: epochs_to_same_loss(speeds(batch_sizes=() if empty else (8, 32))),
        lambda table: training_curves(curves(momenta=()) if empty else curves(), pairs(0 if empty else 3)),
    )
    return [make(rates([]) if empty else two_rules()) for make in made]


def shown_pairs(chart) -> dict:
    """The exported specification with the box ticked."""
    made = json.loads(json.dumps(for_export(chart)))
    for param in made["params"]:
        if param["name"] == "single_pairs":
            param["value"] = True
    return made


def test_a_line_and_a_band_for_each_rule_in_its_colour() -> None:
    chart = training_curves(curves(epochs=24), pairs(0))
    assert len(marks(chart, "means")) == len(marks(chart, "bands")) == 2
    assert colours(chart) == {BLUE, VERMILION}
    assert texts(chart, "legend-label") == ["SGD", "SGDM β = 0.9"]
    assert texts(chart, "title-text") == ["Batch size 32"]


@pytest.mark.parametrize(("last", "kind"), [(0.01, "log"), (0.0, "linear")])
def test_losses_are_on_a_log_axis_as_long_as_all_are_positive(last: float, kind: str) -> None:
    assert scales(training_curves(curves(last=last), pairs(0)), "y") == {kind}
    assert scales(training_curves(curves(), pairs(1, losses=(2.0, last))), "y") == {kind}


def test_single_pairs_are_hidden_until_asked_for() -> None:
    chart = training_curves(curves(), pairs(3))
    boxes = [param for param in spec(chart)["params"] if param["name"] == "single_pairs"]
    assert [(box["bind"]["input"], box["value"]) for box in boxes] == [("checkbox", False)]
    assert marks(chart, "singles") == []
    shown = vl_convert.vegalite_to_svg(shown_pairs(chart), vl_version="6.1")
    assert shown.count("singles_marks") == 6  # a line for each run of three pairs


def test_the_filter_stands_before_the_unfolding() -> None:
    first, second = layer(training_curves(curves(), pairs(3)), "singles")["transform"]
    assert first == {"filter": {"param": "single_pairs"}}
    assert second == {"flatten": ["epoch", "loss"]}


def test_pointing_at_a_run_picks_both_of_its_pair() -> None:
    (picked,) = (p for p in spec(training_curves(curves(), pairs(3)))["params"] if p["name"] == "pointed_pair")
    assert picked["select"]["fields"] == ["pair"]
    assert picked["select"]["on"] == "pointerover"


def test_without_pairs_there_is_no_box() -> None:
    made = spec(training_curves(curves(), pairs(0)))
    assert not made.get("params")
    assert [part["name"] for part in made["layer"]] == ["bands", "means", "points"]


def test_few_epochs_show_their_points_and_whole_ticks() -> None:
    chart = training_curves(curves(epochs=1), pairs(0))
    assert layer(chart, "points")["mark"]["opacity"] == 1
    assert layer(chart, "means")["encoding"]["x"]["axis"]["values"] == [0, 1]
    assert layer(training_curves(curves(epochs=24), pairs(0)), "points")["mark"]["opacity"] == 0


def test_a_single_curve_with_gaps_is_drawn() -> None:
    chart = training_curves(curves(), pairs(1, losses=(2.0, float("nan"), 0.02)))
    assert rows_of(chart, "singles")[0]["loss"] == [2.0, None, 0.02]
    assert "singles_marks" in vl_convert.vegalite_to_svg(shown_pairs(chart), vl_version="6.1")


def test_thousands_of_rows_are_not_refused() -> None:
    assert len(rows_of(training_curves(curves(epochs=3000), pairs(0)), "means")) == 6002


def test_epochs_to_the_same_loss_start_at_zero() -> None:
    chart = epochs_to_same_loss(speeds())
    assert len(marks(chart, "lines")) == 2
    assert len(marks(chart, "points")) == 4
    assert texts(chart, "legend-label") == ["SGD", "SGDM β = 0.9"]
    assert layer(chart, "points")["encoding"]["y"]["scale"]["domain"][0] == 0
    assert colours(chart) == {BLUE, VERMILION}


def test_sgd_has_a_line_for_each_momentum_it_is_paired_with() -> None:
    chart = epochs_to_same_loss(speeds(momenta=(0.5, 0.9)))
    assert len(marks(chart, "lines")) == 4
    assert sorted(texts(chart, "legend-label")) == [
        "SGD for β = 0.5",
        "SGD for β = 0.9",
        "SGDM β = 0.5",
        "SGDM β = 0.9",
    ]
    assert colours(chart) == {BLUE, VERMILION}


@pytest.mark.parametrize("empty", [False, True])
def test_every_figure_is_valid_finite_described_and_as_wide_as_its_place(empty: bool) -> None:
    for chart in all_figures(empty):
        made = spec(chart)
        assert finite(made)
        assert made["description"].endswith(".")
        assert "None" not in json.dumps(made)
        assert made["width"] == "container"
        assert made["autosize"] == {"type": "fit-x", "contains": "padding"}
        assert made["config"]["background"] == "transparent"
        assert chart.to_dict() == made  # nothing changes from one time to the next


@pytest.mark.parametrize("empty", [False, True])
def test_no_figure_makes_vega_lite_warn(empty: bool, capfd: pytest.CaptureFixture[str]) -> None:
    for chart in all_figures(empty):
        vl_convert.vegalite_to_vega(for_export(chart), vl_version="6.1", show_warnings=True)
    assert capfd.readouterr() == ("", "")


def test_exports_are_white_and_of_a_fixed_width() -> None:
    for chart in all_figures():
        assert (for_export(chart)["width"], for_export(chart)["background"]) == (480, "white")
        assert float(drawn(chart).get("width")) == 480
        assert 'fill="white"' in svg(chart)


def test_png_has_two_pixels_for_one() -> None:
    image = png(epochs_to_same_loss(speeds()))
    assert image.startswith(b"\x89PNG")
    assert struct.unpack(">I", image[16:20]) == (960,)


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (0.123456789, 0.12346),
        (float("nan"), None),
        (float("-inf"), None),
        (131072, 131072),
        (1e300, None),
        (1e-300, 0.0),
        ("a", "a"),
    ],
)
def test_numbers_have_five_digits_and_counts_stay_whole(value: object, short: object) -> None:
    assert brief(value) == short
