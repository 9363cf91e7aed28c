"""A plan by itself: what a comparison would say before it starts, and nothing else happens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import lightball
from lightball.errors import InputError
from lightball.studies import Plan, Settings
from lightball.studies.api import plan
from lightball.studies.engines.tasks import open_task
from lightball.studies.plan import size_in_words
from lightball.studies.store import study_file
from lightball.workloads import Data, Workload

DIGITS = Settings(batch_sizes=(64,), epochs=2, stages=(6,), tuning_seeds=2, lr=(0.2, 0.4), compile="off")
LINES = replace(DIGITS, engine="process", batch_sizes=(16,), lr=(0.2,), max_extensions=0)


def lines() -> Workload:
    inputs = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    data = Data(inputs, (inputs.sum(dim=1) > 0).long())
    return Workload("lines", lambda: nn.Linear(4, 2), data, data, data)


def told(task: str | Workload, settings: Settings, folder: Path) -> Plan:
    plans: list[Plan] = []
    lightball.compare(task, out=folder, workers=1, settings=settings, on_plan=lambda _, p, __: plans.append(p))
    return plans[0]


@pytest.mark.parametrize("settings", [DIGITS, LINES])
def test_is_what_a_comparison_says(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = "digits" if settings is DIGITS else lines()
    before = plan(task, settings, workers=1)
    assert list(tmp_path.iterdir()) == []
    expected = told(task, settings, tmp_path / "study")
    for name in ("runs", "steps", "num_workers"):
        assert getattr(before, name) == getattr(expected, name)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert plan(task, settings, workers=1, out="study") == expected  # measured then, not again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_finds_the_folder_that_a_comparison_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plans: list[Plan] = []
    lightball.compare(lines(), workers=1, settings=LINES, on_plan=lambda _, p, __: plans.append(p))
    assert plan(lines(), LINES, workers=1) == plans[0]


def test_the_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    told(lines(), LINES, tmp_path)
    with pytest.raises(InputError, match=r"holds another study \(epochs is 2 there, 3 here\)"):
        plan(lines(), replace(LINES, epochs=3), out=tmp_path)


@pytest.mark.parametrize("settings", [DIGITS, LINES])
def test_memory_is_measured_and_kept(settings: Settings, tmp_path: Path) -> None:
    task = "digits" if settings is DIGITS else lines()
    found = told(task, settings, tmp_path)
    assert found.memory is not None
    assert 20e6 < found.memory < 20e9
    assert found.as_json()["memory"] == found.memory
    stored = json.loads((tmp_path / "study.json").read_text())["compositions"]
    assert [c["memory"] for c in stored.values()] == [found.memory]


def test_a_folder_from_before_memory_was_measured_is_as_good(tmp_path: Path) -> None:
    first = lightball.compare(lines(), out=tmp_path, workers=1, settings=LINES)
    there = study_file.find(tmp_path)[0]
    for composition in there["compositions"].values():
        del composition["memory"]
    study_file.store(tmp_path, there)
    assert told(lines(), LINES, tmp_path).memory is None
    assert lightball.compare(lines(), out=tmp_path, workers=1, settings=LINES).reused_runs == first.computed_runs


@pytest.mark.parametrize(("size", "words"), [(480e6, "480 MB"), (999.6e6, "1.0 GB"), (2.46e9, "2.5 GB"), (3, "1 MB")])
def test_sizes_for_people(size: float, words: str) -> None:
    assert size_in_words(int(size)) == words


class TestBasis:
    """What a folder is named after."""

    def basis(self, **options: object) -> dict[str, object]:
        task = open_task(lines(), replace(LINES, **options), "cpu")  # type: ignore[arg-type]
        return dict(task.basis["settings"])

    def test_settings_that_came_later_are_named_where_they_do_something(self) -> None:
        """So that folders from before stay good; for the vectorised engine, they are never named."""
        assert not {"num_steps", "decay", "in_backward", "compile", "tune", "confirm_rates"} & {*self.basis()}
        for option in ({"num_steps": 5}, {"decay": "matrices"}, {"in_backward": True}, {"compile": "on"}):
            assert option.items() <= self.basis(**option).items()
        assert self.basis(compile="auto") == self.basis(compile="off")
        assert self.basis(tune="sgdm", confirm_rates="selected") == self.basis()
        vectorised = self.basis(engine="vectorised", compile="auto")
        assert {*vectorised} == {"epochs", "sampling", "drop_last", "weight_decay", "schedule", "compile"}
