"""Runs that are kept: each has a folder, and goes on there after a deadline or a death, to the same bits."""

from __future__ import annotations

import math
import shutil
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn
from watched_task import SETTINGS, signs, steps_in, watched

import lightball
from lightball.errors import InputError, OutOfTime
from lightball.studies.curves import curves
from lightball.studies.engines.kept_runs import CURVE, Kept, runs_folder, wait_until_free
from lightball.studies.engines.process import Processes, train_run
from lightball.studies.engines.tasks import open_task
from lightball.studies.result import Result
from lightball.studies.runs import Chunk, Run, hash_of, seeds
from lightball.studies.store import survey
from lightball.training.folder import held
from lightball.workloads import Workload
from lightball.workloads.undisturbed import one_thread

RUN = Run(16, 0.2, seeds("confirm", 1)[0], 0.9)


@pytest.fixture(autouse=True)
def single_threaded():  # type: ignore[no-untyped-def]
    with one_thread():
        yield


class TestOneRun:
    def test_stopped_every_three_steps_it_ends_as_without_a_stop(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = watched(tmp_path)
        whole = train_run(task, SETTINGS, RUN, "cpu")
        (tmp_path / "steps").unlink()
        monkeypatch.setattr(time, "time", lambda: float(steps_in(tmp_path)))  # a clock that ticks with the steps
        stops = []
        while (outcome := train_run(task, SETTINGS, RUN, "cpu", tmp_path / "run", deadline=time.time() + 3)) is None:
            stops.append(steps_in(tmp_path))
        assert stops == [3, 6, 9, 12, 15, 18]
        assert steps_in(tmp_path) == 20
        assert outcome == whole

    def test_without_a_folder_a_deadline_stops_it_too(self, tmp_path: Path) -> None:
        assert train_run(watched(tmp_path), SETTINGS, RUN, "cpu", deadline=0.0) is None


class TestWorkers:
    def outcomes(self, folder: Path, kept: Kept | None) -> list[object]:
        task = open_task(watched(folder), SETTINGS, "cpu")
        with closing(Processes(task, SETTINGS, "cpu", 1, kept)) as engine:
            return [outcome for _, outcomes in engine.compute([Chunk((RUN,))]) for outcome in outcomes]

    def test_a_worker_that_is_killed_goes_on_from_its_checkpoint(self, tmp_path: Path) -> None:
        expected = self.outcomes(tmp_path, None)
        (tmp_path / "steps").unlink()
        (tmp_path / "deadly").touch()
        kept = Kept(tmp_path / "runs", "basis", checkpoint_seconds=1e-6)  # after every step
        assert self.outcomes(tmp_path, kept) == expected
        assert not (tmp_path / "deadly").exists(), "it was not killed"
        assert steps_in(tmp_path) == 20 + 1  # the tenth is taken again, and none before it
        assert [path.name for path in kept.of(Chunk((RUN,))).iterdir()] == [CURVE]

    def test_what_is_stopped_is_not_handed_over(self, tmp_path: Path) -> None:
        kept = Kept(tmp_path / "runs", "basis", deadline=0.0)
        with pytest.raises(OutOfTime, match="1 runs were stopped"):
            self.outcomes(tmp_path, kept)
        assert list(kept.of(Chunk((RUN,))).glob("checkpoints/step-*"))

    def test_checkpoints_stay_until_the_outcome_is_stored(self, tmp_path: Path) -> None:
        kept = Kept(tmp_path / "runs", "basis")
        with closing(Processes(open_task(watched(tmp_path), SETTINGS, "cpu"), SETTINGS, "cpu", 1, kept)) as engine:
            finished = engine.compute([Chunk((RUN,))])
            next(finished)
            assert list(kept.of(Chunk((RUN,))).glob("checkpoints/*"))
            assert list(finished) == []
        assert not list(kept.of(Chunk((RUN,))).glob("checkpoints*"))


def test_a_folder_whose_worker_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    """Its parent was killed a moment ago; the worker notices within a second."""
    held_by_another, freed = threading.Event(), []

    def other() -> None:
        with held(tmp_path):
            held_by_another.set()
            time.sleep(0.5)
            freed.append(time.monotonic())

    thread = threading.Thread(target=other)
    thread.start()
    held_by_another.wait()
    wait_until_free(tmp_path)
    assert freed
    assert time.monotonic() >= freed[0]
    thread.join()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The study without keeping anything and without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    return lightball.compare(watched(folder), out=folder / "study", workers=2, settings=SETTINGS)


class TestStudy:
    def test_stopped_by_deadlines_it_ends_as_without_a_stop(self, whole: Result, tmp_path: Path) -> None:
        task, study = watched(tmp_path), tmp_path / "study"
        (tmp_path / "slow").touch()  # a run takes a second
        budget = 0.0  # the first ends before it begins
        while not any(path.name > "step-000000" for path in runs_folder(study).glob("*/checkpoints/step-*")):
            deadline = time.time() + budget
            with pytest.raises(
                OutOfTime, match=r"^the time budget is spent: (tuning|confirming, 6 pairs), \d+ runs are"
            ):
                lightball.compare(task, out=study, workers=2, settings=SETTINGS, deadline=deadline, keep_runs=True)
            assert time.time() < deadline + 60
            assert survey(study).in_flight == ()
            assert not list((study / "claims").iterdir())
            budget = max(5.0, 1.5 * budget)  # workers start slowly on a busy machine
        (tmp_path / "slow").unlink()
        result = lightball.compare(task, out=study, workers=2, settings=SETTINGS, keep_runs=True)
        assert result.batches == whole.batches
        assert {path.name for path in runs_folder(study).glob("*/*")} == {CURVE}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The study with its runs kept, and its folder; not to be changed."""
    folder = tmp_path_factory.mktemp("kept")
    study = folder / "study"
    return lightball.compare(watched(folder), out=study, workers=2, settings=SETTINGS, keep_runs=True), study


class TestCurves:
    def test_keeping_changes_no_result(self, whole: Result, kept: tuple[Result, Path]) -> None:
        assert kept[0].batches == whole.batches

    def test_of_finished_runs_by_phase_and_run(self, kept: tuple[Result, Path]) -> None:
        found = curves(kept[1])
        assert [(c.phase, c.run) for c in found] == sorted((c.phase, c.run) for c in found)
        assert [c.phase for c in found] == ["confirm"] * 12 + ["tune"] * 2
        rows = {(r["phase"], r["seed"], r["momentum"]): r for r in lightball.load(kept[1]).to_pylist()}
        for curve in found:
            assert [point.step for point in curve.points] == [0, 4, 8, 12, 16, 20]
            row = rows[curve.phase, curve.run.seed, curve.run.momentum]
            assert curve.points[-1].train_loss == row["final_train_loss"]
            assert curve.points[-1].test_accuracy == row["final_test_accuracy"]
            assert all(point.test_accuracy is not None for point in curve.points)

    def test_half_a_run_is_none(self, kept: tuple[Result, Path], tmp_path: Path) -> None:
        """It has a curve, and no outcome."""
        study = Path(shutil.copytree(kept[1], tmp_path / "copy"))
        folders = sorted(runs_folder(study).iterdir())
        shutil.copytree(folders[0], folders[0].with_name("0123456789abcdef"))
        assert curves(study) == curves(kept[1])

    def test_one_that_cannot_be_read_is_named(self, kept: tuple[Result, Path], tmp_path: Path) -> None:
        study = Path(shutil.copytree(kept[1], tmp_path / "copy"))
        path = next(runs_folder(study).glob(f"*/{CURVE}"))
        path.write_text("half a li")
        with pytest.raises(InputError, match=r"the curve '.*curve.jsonl' cannot be read .*: delete it to go on"):
            curves(study)
        path.unlink()
        assert len(curves(study)) == 13

    def test_a_run_s_folder_is_named_by_the_key_of_its_chunk(self, kept: tuple[Result, Path], tmp_path: Path) -> None:
        basis = hash_of(open_task(watched(tmp_path), SETTINGS, "cpu").basis)
        tuned = {Chunk((Run(16, 0.2, seed, m),)).key(basis) for seed in seeds("tune", 1) for m in (0.0, 0.9)}
        assert tuned < {path.name for path in runs_folder(kept[1]).iterdir()}

    def test_a_run_that_crashed_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "broken").touch()
        study = tmp_path / "study"
        result = lightball.compare(watched(tmp_path), out=study, workers=1, settings=SETTINGS, keep_runs=True)
        assert result.crashed_runs == result.computed_runs > 0
        assert list(runs_folder(study).glob(f"*/{CURVE}"))
        assert curves(study) == []

    def test_a_run_that_fails_has_the_points_before(self, tmp_path: Path) -> None:
        task = Workload("lines", lambda: nn.Linear(4, 2), signs(), signs(), signs())
        settings = replace(SETTINGS, lr=(1e30,), weight_decay=1.0)
        lightball.compare(task, out=tmp_path, workers=1, settings=settings, keep_runs=True)
        found = curves(tmp_path)
        assert len(found) == 2
        assert all(curve.points[0].step == 0 and math.isfinite(curve.points[0].train_loss) for curve in found)


@pytest.mark.parametrize("engine", ["vectorised", "command"])
def test_other_engines_keep_no_runs(tmp_path: Path, engine: str) -> None:
    with pytest.raises(InputError, match=f"keep-runs is on, but the {engine} engine keeps nothing .*--engine process"):
        lightball.compare("digits", out=tmp_path, keep_runs=True, engine=engine)
