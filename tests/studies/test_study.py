"""A study read back from its folder is the study that was computed, finished or not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fabricated import CONFIRM, Effect, FakeEngine, World, broken, study
from lightball import InputError, compare
from lightball.studies.runs import Chunk, Outcome, Run, crashed
from lightball.studies.settings import Settings
from lightball.studies.study import read_study

SMALL = Settings(batch_sizes=(8, 32), lr=(0.1, 0.2, 0.4, 0.8, 1.6), stages=(8, 16, 32), max_extensions=2)
SEVERAL = replace(SMALL, momentum=(0.5, 0.9, 0.99), batch_sizes=(4, 8, 512))
HELPS = World({(32, 0.9): Effect(8.0, 0.5), (512, 0.99): Effect(-9.0, 0.5), (8, 0.9): Effect(1.0, 2.0)})


def crash_at(world: World, lost: set[int]) -> FakeEngine:
    """Every run on some seeds crashes, and one rule on some more."""

    def outcome(run: Run) -> Outcome:
        if run.seed in lost or (run.momentum and run.seed % 11 == 0 and run.seed in CONFIRM):
            return crashed(run, "the worker died\nits log")
        return world(run)

    return FakeEngine(outcome)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        (SMALL, FakeEngine(HELPS)),
        (SEVERAL, FakeEngine(HELPS)),
        (SMALL, FakeEngine(World(best_lr=6.4))),  # the grid grows up to its limit
        (SMALL, FakeEngine(World(best_lr=0.03, stable_below=0.3))),
        (SMALL, FakeEngine(broken)),  # nothing trains
        (SMALL, crash_at(HELPS, set(sorted(CONFIRM)[:3]))),
        (replace(SMALL, select="validation_accuracy"), FakeEngine(HELPS)),
    ],
    ids=["plain", "several momenta", "growth up", "growth down", "all failed", "crashes", "by accuracy"],
)
def test_a_finished_study_reads_back_as_its_result(settings: Settings, engine: FakeEngine, tmp_path: Path) -> None:
    result, _ = study(settings, engine, tmp_path)
    before = contents(tmp_path)

    found = read_study(tmp_path)

    assert found.finished
    assert repr(found.result.batches) == repr(result.batches)  # NaN equals itself there
    assert found.result.crashed_runs == result.crashed_runs
    assert found.request.settings == settings
    assert contents(tmp_path) == before


class Stop(BaseException):
    """As Ctrl-C."""


def stops_after(count: int) -> FakeEngine:
    def stop(chunk: Chunk) -> None:
        if len(engine.chunks) == count:
            raise Stop

    engine = FakeEngine(HELPS, stop)
    return engine


@pytest.mark.parametrize("settings", [SMALL, SEVERAL], ids=["one momentum", "several"])
def test_after_any_chunk_what_is_said_is_what_the_comparison_would_say(settings: Settings, tmp_path: Path) -> None:
    result, engine = study(settings, HELPS, tmp_path / "whole", width=6)
    final = {batch.batch_size: batch for batch in result.batches}
    seen_open = seen_judged = 0
    last = -1
    count = len(engine.chunks)
    for stop in [*range(1, count - 12, count // 10), *range(count - 12, count)]:
        folder = tmp_path / str(stop)
        partial = stops_after(stop)
        with pytest.raises(Stop):
            study(settings, partial, folder, width=6)
        found = read_study(folder)
        assert not found.finished
        assert last < found.num_runs <= sum(len(chunk.runs) for chunk in partial.chunks)
        last = found.num_runs
        for batch in found.batches:
            if batch.finished:
                assert batch.result == final[batch.batch_size]
            elif batch.result:  # judged at an earlier stage: a final decision stays
                seen_judged += 1
                for now, then in zip(batch.result.pairings, final[batch.batch_size].pairings, strict=True):
                    assert all(then.decisions[m] == d for m, d in now.decisions.items() if d.final)
            seen_open += batch.result is None
    assert seen_open > 3
    assert seen_judged > 3


def test_margins_of_an_earlier_comparison_still_count(tmp_path: Path) -> None:
    study(SMALL, HELPS, tmp_path)
    result, _ = study(replace(SMALL, margin_loss=0.02), HELPS, tmp_path)
    assert result.batches[0].margins_changed
    assert read_study(tmp_path).result.batches == result.batches


def test_the_last_comparison_of_a_folder_is_the_one_that_is_read(tmp_path: Path) -> None:
    study(SMALL, HELPS, tmp_path)
    result, _ = study(replace(SMALL, batch_sizes=(8,), stages=(8,)), HELPS, tmp_path)
    found = read_study(tmp_path)
    assert found.result.batches == result.batches
    assert found.num_runs == result.computed_runs + result.reused_runs


def test_a_damaged_chunk_is_missing_and_named(tmp_path: Path) -> None:
    study(SMALL, HELPS, tmp_path)
    path = next(iter(sorted((tmp_path / "chunks").iterdir())))
    path.write_bytes(path.read_bytes()[:-9])
    found = read_study(tmp_path)
    assert not found.finished
    assert [damage.name for damage in found.damaged] == [f"chunks/{path.name}"]
    assert path.exists()


def test_a_comparison_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    lost = set(CONFIRM)
    with pytest.raises(InputError, match="every run crashed"):
        study(SMALL, crash_at(HELPS, lost), tmp_path)
    found = read_study(tmp_path)
    assert "every run crashed" in (found.batches[0].stopped or "")
    assert not found.finished


def test_real_runs_read_back(tmp_path: Path) -> None:
    settings = Settings((256,), (0.4, 0.8), epochs=1, stages=(6,), tuning_seeds=2, max_extensions=0, compile="off")
    result = compare("digits", out=tmp_path, settings=settings)
    found = read_study(tmp_path)
    assert found.result.batches == result.batches
    assert found.basis["device"] == "cpu"
    assert found.request.task == "digits"
    first = found.seconds
    assert first is not None
    assert 0 < first <= result.seconds
    compare("digits", out=tmp_path, settings=settings)  # computes nothing
    assert read_study(tmp_path).seconds == first


def test_what_is_no_study_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(folder: Path, text: str) -> None:
        with pytest.raises(InputError, match=text) as caught:
            read_study(folder)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none", "there is no folder")
    refused(tmp_path, "holds no study")
    file = tmp_path / "file"
    file.write_text("x")
    refused(file, "is a file")

    folder = tmp_path / "study"
    study(SMALL, HELPS, folder)
    asked = (folder / "comparison.json").read_bytes()
    (folder / "comparison.json").write_bytes(asked.replace(b"made-up", b"made-it"))
    refused(folder, "comparison.json' is damaged .*run the command of the study again")
    (folder / "comparison.json").unlink()
    refused(folder, "has no comparison.json")
    (folder / "comparison.json").write_bytes(asked)
    for path in (folder / "chunks").iterdir():
        path.write_bytes(b"")
    refused(folder, "holds no finished run yet; .* damaged files are not believed")
    for path in (folder / "chunks").iterdir():
        path.unlink()
    refused(folder, "holds no finished run yet: run the command of the study")
    study_file = folder / "study.json"
    study_file.write_text(json.dumps({"format": 2}))
    (folder / "study.copy.json").unlink()
    refused(folder, "is damaged")
