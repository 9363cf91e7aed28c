"""A deadline ends a run at a step, with a checkpoint from which it goes on; and checkpoints by the clock."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_tasks import noisy, smooth

from lightball.errors import InputError, OutOfTime
from lightball.training import Point, Recipe, loop, train

RECIPE = Recipe(batch_size=25, effective_lr=0.3, momentum=0.9, epochs=3, clip_norm=1.0, accumulate=2, eval_every=5)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


class Steps:
    """A clock on which every look at the time takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_stops_at_the_first_step_after_it_and_goes_on_to_the_bit(tmp_path: Path, monkeypatch: Any) -> None:
    whole = train(noisy(), RECIPE, 1, folder=tmp_path / "whole")
    monkeypatch.setattr(loop, "time", SimpleNamespace(time=Steps()))
    message = r"^the time is up after 12 of 30 steps: the same call goes on from there, in '.*parts'$"
    with pytest.raises(OutOfTime, match=message):
        train(noisy(), RECIPE, 1, folder=tmp_path / "parts", deadline=13.0)
    assert names(tmp_path / "parts") == ["step-000010", "step-000012"]
    taken: list[Point] = []
    assert train(noisy(), RECIPE, 1, folder=tmp_path / "parts", on_point=taken.append) == whole
    assert [point.step for point in taken] == [15, 20, 25, 30]


def test_one_that_has_passed_before_the_first_step_keeps_the_first_point(tmp_path: Path) -> None:
    whole = train(smooth(), RECIPE, 1)
    for measured in ([0], []):
        taken: list[Point] = []
        with pytest.raises(OutOfTime, match="after 0 of 30 steps"):
            train(smooth(), RECIPE, 1, folder=tmp_path, deadline=time.time() - 1, on_point=taken.append)
        assert [point.step for point in taken] == measured
        assert names(tmp_path) == ["step-000000"]
    assert train(smooth(), RECIPE, 1, folder=tmp_path) == whole


def test_one_in_the_future_or_after_the_end_changes_nothing(tmp_path: Path) -> None:
    whole = train(smooth(), RECIPE, 1, folder=tmp_path, deadline=time.time() + 1000)
    assert whole == train(smooth(), RECIPE, 1)
    assert train(smooth(), RECIPE, 1, folder=tmp_path, deadline=time.time() - 1) == whole


def test_a_run_that_fails_in_its_last_step_before_it_is_a_result(tmp_path: Path, monkeypatch: Any) -> None:
    workload = replace(smooth(), loss=lambda outputs, _: outputs.sum(dim=1) * float("nan"))
    monkeypatch.setattr(loop, "time", SimpleNamespace(time=Steps()))
    assert train(workload, RECIPE, 1, folder=tmp_path, deadline=2.0).failed_at == 0


def test_without_a_folder_it_says_no_more_than_that() -> None:
    with pytest.raises(OutOfTime, match=r"^the time is up after 0 of 30 steps$"):
        train(smooth(), RECIPE, 1, deadline=0.0)


def test_checkpoints_by_seconds(tmp_path: Path, monkeypatch: Any) -> None:
    """On a clock that a point moves by ten seconds; without epochs in between."""
    from lightball.training import keeping

    now = [0.0]
    monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    kept: list[str] = []
    save = keeping.save

    def watched(state: Any, *arguments: Any) -> None:
        kept.append(state.step)
        save(state, *arguments)

    monkeypatch.setattr(keeping, "save", watched)

    def pass_time(point: Point) -> None:
        now[0] += 10

    train(smooth(), RECIPE, 1, folder=tmp_path / "20", checkpoint_seconds=20.0, on_point=pass_time)
    assert kept == [6, 16, 26, 30]
    kept.clear()
    train(smooth(), RECIPE, 1, folder=tmp_path / "1000", checkpoint_seconds=1000.0, on_point=pass_time)
    assert kept == [30]
    kept.clear()
    train(smooth(), RECIPE, 1, folder=tmp_path / "both", checkpoint_seconds=20.0, checkpoint_every=8)
    assert kept == [8, 16, 24, 30]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"checkpoint_seconds": 0}, "checkpoint_seconds is 0, but must be a finite number above 0"),
        ({"checkpoint_seconds": "1"}, "checkpoint_seconds is '1', but must be a finite number above 0"),
        (
            {"checkpoint_seconds": 5.0},
            "checkpoint_seconds is given without a folder to write to: give folder, or leave checkpoint_seconds out",
        ),
    ],
    ids=str,
)
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        train(smooth(), RECIPE, 1, **wrong)
