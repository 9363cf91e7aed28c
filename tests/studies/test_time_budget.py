"""A deadline: nothing starts that would not end before it, what is finished stays, and the same call goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

import lightball
from fabricated import BASIS, FakeEngine, World
from lightball.errors import InputError, OutOfTime
from lightball.studies.comparison import Comparison
from lightball.studies.ledger import Ledger, Silent
from lightball.studies.plan import BatchPlan, Plan
from lightball.studies.result import BatchResult
from lightball.studies.runs import Chunk, hash_of
from lightball.studies.settings import Settings
from lightball.studies.store import Store, survey
from lightball.studies.study import read_study

SETTINGS = Settings(batch_sizes=(8,), lr=(0.2, 0.4), stages=(6,), tuning_seeds=2, max_extensions=0)
RUNS = 8 + 24
VECTORISED = {"batch_sizes": (64,), "epochs": 2, "stages": (6,), "tuning_seeds": 2, "lr": (0.2, 0.4), "compile": "off"}


class Clock:
    """Time that passes only when a chunk is computed: ten seconds each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("lightball.studies.ledger.time.time", lambda: self.now)

    def tick(self, chunk: Chunk) -> None:
        self.now += 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def compare(
    engine: FakeEngine, folder: Path, deadline: float | None, seconds: float | None = 5.0, stoppable: bool = False
) -> tuple[BatchResult, ...]:
    """Chunks of two runs, each of which should take so many seconds."""
    plan = Plan((BatchPlan(8, 20, 2, False, 8, (24, 24), seconds),), 1)
    with Store(folder, BASIS, {}) as store:
        ledger = Ledger(plan, hash_of(BASIS), engine, store, Silent(), deadline=deadline, stoppable=stoppable)
        return Comparison(SETTINGS, ledger, store).run()


@pytest.mark.parametrize(
    ("seconds", "stoppable", "deadline", "chunks"),
    [
        (5.0, False, 1030.0, 2),  # the third would end at the deadline, not before
        (5.0, False, 1030.1, 3),
        (8.0, False, 1030.1, 2),  # the third is believed to end at 1036
        (8.0, True, 1020.1, 3),  # and would be stopped
        (None, False, 1020.1, 3),  # nothing is known
        (5.0, False, 1000.0, 0),
        (5.0, True, 1000.0, 0),
    ],
)
def test_what_starts(
    clock: Clock, tmp_path: Path, seconds: float | None, stoppable: bool, deadline: float, chunks: int
) -> None:
    engine = FakeEngine(World(), clock.tick)
    with pytest.raises(OutOfTime, match=rf"^the time budget is spent: tuning, {8 - 2 * chunks} runs are missing$"):
        compare(engine, tmp_path, deadline, seconds, stoppable)
    assert len(engine.chunks) == chunks
    assert survey(tmp_path).in_flight == ()
    assert not list((tmp_path / "claims").iterdir())
    assert sum(len(c.runs) for c in engine.chunks) == lightball.load(tmp_path).num_rows


def test_again_and_again_it_ends_as_without_a_deadline(clock: Clock, tmp_path: Path) -> None:
    expected = compare(FakeEngine(World(), clock.tick), tmp_path / "whole", None)
    calls, computed, found = 0, 0, None
    while found is None:
        engine = FakeEngine(World(), clock.tick)
        try:
            found = compare(engine, tmp_path / "parts", clock.now + 35.0)
        except OutOfTime:
            assert len(engine.chunks) == 3
        calls += 1
        computed += len(engine.runs)
    assert found == expected
    assert computed == RUNS
    assert calls == 6


def test_a_shorter_chunk_may_still_fit(clock: Clock, tmp_path: Path) -> None:
    settings = replace(SETTINGS, batch_sizes=(8, 32))
    plan = Plan((BatchPlan(8, 20, 2, False, 8, (24, 24), 500.0), BatchPlan(32, 20, 2, False, 8, (24, 24), 5.0)), 1)
    engine = FakeEngine(World(), clock.tick)
    with Store(tmp_path, BASIS, {}) as store:
        ledger = Ledger(plan, hash_of(BASIS), engine, store, Silent(), deadline=1100.0)
        comparison = Comparison(settings, ledger, store)
        with pytest.raises(OutOfTime):
            comparison.run()
    assert {chunk.batch_size for chunk in engine.chunks} == {32}
    assert len(engine.chunks) == 4


def test_what_others_compute_is_not_awaited_longer(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        clock.now += 10.0

    monkeypatch.setattr("lightball.studies.ledger.time.sleep", sleep)
    monkeypatch.setattr(Store, "claim", lambda self, key: key == "study" or key.endswith("-save"))
    with pytest.raises(OutOfTime, match="tuning, 8 runs are missing"):
        compare(FakeEngine(World()), tmp_path, 1100.0)
    assert clock.now == pytest.approx(1090.0)


def test_an_engine_that_stops_by_itself_is_believed(tmp_path: Path) -> None:
    """Whatever the clock says, which may have been set back: there is no waiting for one's own claims."""

    def stop(_: Chunk) -> None:
        raise OutOfTime

    with pytest.raises(OutOfTime, match="the time budget is spent: tuning, 8 runs are missing"):
        compare(FakeEngine(World(), stop), tmp_path, time.time() + 1000, stoppable=True)


class TestCompare:
    def test_in_parts_it_gives_the_same_bits(self, tmp_path: Path, clock: Clock) -> None:
        """A year goes by with the first chunk."""

        class Aging(Silent):
            def advance(self, work: float) -> None:
                clock.now += 3e7

        folder, year = tmp_path / "parts", clock.now + 3e7
        with pytest.raises(OutOfTime):
            lightball.compare("digits", out=folder, workers=1, deadline=year, observer=Aging(), **VECTORISED)
        there = read_study(folder)
        assert not there.finished
        assert there.seconds is not None
        result = lightball.compare("digits", out=folder, workers=1, **VECTORISED)
        assert result.reused_runs == there.num_runs > 0
        whole = lightball.compare("digits", out=tmp_path / "whole", workers=1, **VECTORISED)
        assert result.batches == whole.batches

    def test_a_budget_that_is_too_short_for_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            lightball.compare("digits", out=tmp_path, workers=1, deadline=time.time(), **VECTORISED)
        assert str(caught.value).startswith(
            "the time budget leaves nothing for runs, but the shortest takes about 1 s: give more time, or "
        )
        assert str(caught.value).endswith("let runs stop and go on, with --engine process --keep-runs")

    def test_a_finished_study_needs_no_time(self, tmp_path: Path) -> None:
        whole = lightball.compare("digits", out=tmp_path, workers=1, **VECTORISED)
        again = lightball.compare("digits", out=tmp_path, workers=1, deadline=0.0, **VECTORISED)
        assert again.batches == whole.batches
