"""The page of few-shot fine-tuning, from made-up runs."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from fabricated import MARGIN_ACCURACY, UNTRAINED_ACCURACY, Effect, World, study
from lightball.report.figures import png, svg
from lightball.report.plain import plain_text
from lightball.report.reproduce.finetune import finetune_page
from lightball.reproduce.finetune import FinetuneResult, finetune_parts, read_finetune, verdicts
from lightball.reproduce.finetune_settings import FinetuneSettings
from lightball.studies.runs import Run, seeds

# Of accuracy, in half points; the margin is a whole one.
EFFECTS = {"sst2": Effect(0, 0.2), "sst5": Effect(10, 0.2), "trec": Effect(-10, 0.2), "snli": Effect(2, 5)}
SETTINGS = FinetuneSettings(tasks=tuple(EFFECTS), lr=(0.1, 0.2, 0.4, 0.8, 1.6), margin_accuracy=0.01)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    out = tmp_path_factory.mktemp("out")
    for part in finetune_parts(SETTINGS):
        study(part.settings, World({(8, 0.9): EFFECTS[part.name]}), out / part.name)
    return read_finetune(SETTINGS, out)


def test_verdicts_are_told_by_task(found: FinetuneResult) -> None:
    assert verdicts(found.rows) == {
        "no value": ["sst2"],
        "helps": ["sst5"],
        "hurts": ["trec"],
        "undecided": ["snli"],
    }
    assert finetune_page(found).answer == (
        "For test accuracy momentum is of no value on sst2; it helps on sst5; it hurts on trec; it may or may not "
        "matter on snli."
    )


def test_the_text_has_the_table(found: FinetuneResult) -> None:
    text = plain_text(finetune_page(found))
    (row,) = (row for row in found.rows if row.task == "sst5")
    world = World({(8, 0.9): EFFECTS["sst5"]})
    lr = row.sgdm.lr
    accuracies = [100 * world(Run(8, lr, seed, 0.9)).final["test_accuracy"] for seed in seeds("confirm", 6)]

    (line,) = (line.split() for line in text.splitlines() if line.startswith("  sst5"))
    sgdm = f"{statistics.mean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}"
    assert line[:3] == ["sst5", f"{100 * UNTRAINED_ACCURACY:.1f}", f"{lr:g}"]
    assert " ".join(line[7:10]) == sgdm
    assert float(line[10]) == pytest.approx(100 * 10 * MARGIN_ACCURACY, abs=0.2)
    assert line[-1] == "helps"
    assert "of which 1.00 do not matter" in text
    assert "Pairs that would decide it" in text


def test_a_classifier_has_no_zero_shot(found: FinetuneResult) -> None:
    rows = tuple(replace(row, zero_shot=None) for row in found.rows)
    text = plain_text(finetune_page(replace(found, settings=replace(SETTINGS, head="classifier"), rows=rows)))
    assert "zero-shot" not in text
    assert "a fresh linear layer" in text


def test_the_figures_show_every_task_and_can_be_drawn(found: FinetuneResult) -> None:
    differences, accuracies = (part for part in finetune_page(found).sections[0].parts if hasattr(part, "chart"))
    for figure in (differences, accuracies):
        figure.chart.to_dict(validate=True)
        assert png(figure.chart).startswith(b"\x89PNG")
        assert all(f">{task}</text>" in svg(figure.chart) for task in EFFECTS)

    spec = differences.chart.to_dict()
    (means,) = (layer for layer in spec["layer"] if layer.get("name") == "means")
    drawn = {row["name"]: row for row in spec["datasets"][means["data"]["name"]]}
    for row in found.rows:
        assert drawn[row.task]["mean"] == pytest.approx(100 * row.decision.interval.mean, rel=1e-4)
        assert drawn[row.task]["low"] == pytest.approx(100 * row.decision.interval.low, rel=1e-4)
        assert drawn[row.task]["verdict"] == row.decision.verdict
    assert "trec: hurts" in spec["description"]

    spec = accuracies.chart.to_dict()
    (means,) = (layer for layer in spec["layer"] if layer.get("name") == "means")
    drawn = spec["datasets"][means["data"]["name"]]
    assert [row["series"] for row in drawn[:3]] == ["SGD", "SGDM", "zero-shot"]
    assert drawn[0]["high"] - drawn[0]["low"] == pytest.approx(200 * found.rows[0].sgd.sd, rel=1e-3)
    assert len({row["at"] for row in drawn}) == 12


def test_what_is_missing_is_said_first(found: FinetuneResult, tmp_path: Path) -> None:
    nothing = read_finetune(SETTINGS, tmp_path)
    page = finetune_page(nothing)
    assert page.answer == "No task has a verdict yet."
    assert page.notice.startswith("Not finished: sst2 has none, sst5 has none")
    assert nothing.as_json()["rows"] == []

    begun = replace(found.rows[0], sgd=None, sgdm=None, decision=None, finished=False, tuned=3, confirmed=0)
    half = replace(found, rows=(begun, *found.rows[1:]), finished=False)
    page = finetune_page(half)
    assert page.notice.startswith("Not finished: sst2 has 3 tuning and 0 confirmation runs.")
    assert "sst2" not in page.answer


def test_an_edge_and_failed_runs_are_told(found: FinetuneResult) -> None:
    row = found.rows[0]
    marked = replace(row, sgd=replace(row.sgd, at_edge=True), sgdm=replace(row.sgdm, failed=2))
    lead = " ".join(finetune_page(replace(found, rows=(marked,))).lead)
    assert "at the edge of the grid for SGD on sst2" in lead
    assert "2 of 6 of SGDM on sst2" in lead
    assert "edge" not in " ".join(finetune_page(found).lead)
