"""The headline of a page: the answer in a sentence, whatever was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fabricated import Effect, FakeEngine, World, broken, study
from lightball.report.answer import headline, unfinished
from lightball.studies.runs import Chunk
from lightball.studies.settings import Settings
from lightball.studies.study import read_study

NO, HELPS, HURTS, OPEN = Effect(0.0, 0.1), Effect(9.0, 0.1), Effect(-9.0, 0.1), Effect(1.0, 0.3)
SETTINGS = Settings(batch_sizes=(8, 32, 128), lr=(0.2, 0.4, 0.8), stages=(8, 16), max_extensions=0)


class Stop(BaseException):
    """As Ctrl-C."""


def said(folder: Path, effects: Mapping[int, Effect], momentum: tuple[float, ...] = (0.9,)) -> str:
    world = World({(b, m): effect for b, effect in effects.items() for m in momentum})
    settings = replace(SETTINGS, batch_sizes=tuple(effects), momentum=momentum)
    study(settings, world, folder, task="my task")
    return headline(read_study(folder))


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ({8: NO, 32: NO, 128: HELPS}, "momentum had no value up to batch size 32 and helped from 128 on."),
        ({8: NO, 32: NO}, "momentum had no value up to batch size 32."),
        ({8: HELPS, 32: HELPS}, "momentum helped from batch size 8 on."),
        ({64: NO}, "momentum had no value at batch size 64."),
        ({64: HELPS}, "momentum helped at batch size 64."),
        ({8: HURTS, 32: HURTS, 128: NO}, "momentum hurt at batch size 8 and 32 and had no value at 128."),
        ({8: NO, 32: OPEN}, "momentum had no value up to batch size 8; at 32 it is undecided."),
        ({8: OPEN, 32: OPEN, 128: OPEN}, "the value of momentum is undecided at batch size 8, 32 and 128."),
    ],
)
def test_one_momentum(effects: Mapping[int, Effect], expected: str, tmp_path: Path) -> None:
    assert said(tmp_path, effects) == f"On my task, {expected}"


def test_many_comparisons_are_counted(tmp_path: Path) -> None:
    kinds = [HURTS, OPEN, NO, OPEN, HURTS, NO, OPEN, HELPS, NO, HURTS, OPEN, NO]
    text = said(tmp_path, {2**k: kind for k, kind in enumerate(kinds)}, (0.5, 0.9, 0.99))
    assert text == (
        "On my task, momentum had no value in 12, helped in 3 and hurt in 9 of 36 comparisons; 12 are undecided."
    )


def test_many_undecided_ones(tmp_path: Path) -> None:
    text = said(tmp_path, {2**k: OPEN for k in range(12)}, (0.5, 0.9, 0.99))
    assert text == "On my task, the value of momentum is undecided in all 36 comparisons."


def test_measures_that_differ_are_told_apart(tmp_path: Path) -> None:
    def world(run: object) -> object:
        outcome = World({(8, 0.9): HELPS})(run)
        return replace(outcome, final={**outcome.final, "test_accuracy": 0.9})

    study(replace(SETTINGS, batch_sizes=(8,)), FakeEngine(world), tmp_path, task="digits")
    assert headline(read_study(tmp_path)) == (
        "On digits, by training loss, momentum helped at batch size 8; by test accuracy, momentum had no value at "
        "batch size 8."
    )


def test_where_nothing_trains(tmp_path: Path) -> None:
    study(SETTINGS, broken, tmp_path, task="digits")
    assert headline(read_study(tmp_path)) == (
        "On digits, there is no verdict: no learning rate trained at any batch size."
    )


def stops_after(count: int) -> FakeEngine:
    def stop(chunk: Chunk) -> None:
        if len(engine.chunks) == count:
            raise Stop

    engine = FakeEngine(World({(8, 0.9): OPEN, (32, 0.9): NO, (128, 0.9): HELPS}), stop)
    return engine


def test_half_done(tmp_path: Path) -> None:
    settings = replace(SETTINGS, stages=(8, 16, 64))
    seen = set()
    for _ in range(100):
        try:  # goes on from what is there
            study(settings, stops_after(6), tmp_path, width=4, task="digits")
        except Stop:
            half = read_study(tmp_path)
            assert headline(half).startswith("So far, on digits, ")
            seen.add(unfinished(half)[0].partition(": ")[2].partition(",")[0].partition(";")[0])
        else:
            break
    assert unfinished(read_study(tmp_path)) == []
    assert headline(read_study(tmp_path)).startswith(
        "On digits, momentum helped from batch size 128 on and had no value at 32; at 8"
    )
    assert seen == {
        "learning rates are being tuned",
        "rates are selected",
        "more pairs are being added where it is undecided",
    }


def test_half_done_says_nothing_of_batch_sizes_in_between(tmp_path: Path) -> None:
    """ "Up to 32" would speak of 8, which is not judged."""
    study(SETTINGS, World(), tmp_path, width=4)
    for path in (tmp_path / "chunks").iterdir():
        row = pq.read_table(path).to_pylist()[0]
        if (row["batch_size"], row["phase"]) == (8, "confirm"):
            path.unlink()
    assert headline(read_study(tmp_path)) == "So far, on made-up, momentum had no value at batch size 32 and 128."
