"""Runs without a result: seeds that crash everywhere are replaced, other crashes count against their rule."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabricated import (
    BEST_LOSS,
    CONFIRM,
    TUNE,
    UNTRAINED_ACCURACY,
    UNTRAINED_LOSS,
    Effect,
    FakeEngine,
    World,
    outcome,
    study,
)
from lightball.errors import InputError
from lightball.report.notes import notes
from lightball.stats import Verdict
from lightball.studies.crashes import complete, lost_seeds, stop_if_all_crash
from lightball.studies.engines.job import Finished
from lightball.studies.runs import Chunk, Outcome, Run, crashed, seeds
from lightball.studies.settings import Settings

SETTINGS = Settings(batch_sizes=(8, 32), lr=(0.2, 0.4, 0.8), stages=(8, 16), tuning_seeds=4)
ERROR = "exit code 3: out of luck"
NAN = math.nan


def crashing(when: Callable[[Run], bool], world: Callable[[Run], Outcome] | None = None) -> Callable[[Run], Outcome]:
    inner = world or World()
    return lambda run: crashed(run, ERROR) if when(run) else inner(run)


class TestSeedsThatCrashEverywhere:
    """A tenth of the seeds crash, whatever rule and rate: they tell nothing, and others take their place."""

    UNLUCKY = frozenset({*seeds("tune", 40)[1::10], *seeds("confirm", 40)[3::10]})

    def test_the_verdict_is_that_of_the_others(self, tmp_path: Path) -> None:
        result, engine = study(SETTINGS, crashing(lambda run: run.seed in self.UNLUCKY), tmp_path)
        for batch in result.batches:
            (pairing,) = batch.pairings
            for decision in pairing.decisions.values():
                assert decision.verdict is Verdict.NO_VALUE
                assert decision.interval.n == 8
            assert batch.sgd.failed == pairing.arm.failed == 0
            assert batch.lost_seeds == 2  # the second tuning seed, the fourth of confirmation
        used = {run.seed for run in engine.runs} - self.UNLUCKY
        assert used & TUNE == set(seeds("tune", 5)) - self.UNLUCKY
        assert used & CONFIRM == set(seeds("confirm", 9)) - self.UNLUCKY

    def test_how_many_is_said(self, tmp_path: Path) -> None:
        result, _ = study(SETTINGS, crashing(lambda run: run.seed in self.UNLUCKY), tmp_path)
        lines = [line for line in notes(result) if line.startswith("batch 8: on 2 seeds every run crashed")]
        assert lines == [f"batch 8: on 2 seeds every run crashed, the last with: {ERROR}; other seeds took their place"]

    def test_they_are_replaced_again_where_the_new_ones_crash(self, tmp_path: Path) -> None:
        unlucky = set(seeds("confirm", 20)[5:10])
        result, engine = study(SETTINGS, crashing(lambda run: run.seed in unlucky), tmp_path)
        assert {run.seed for run in engine.runs} & CONFIRM == set(seeds("confirm", 13))
        assert result.batches[0].pairings[0].decisions["train_loss"].interval.n == 8

    def test_where_too_many_crash_the_comparison_ends_with_their_error(self, tmp_path: Path) -> None:
        unlucky = set(seeds("confirm", 100)[3:])
        with pytest.raises(
            InputError, match=r"at batch size 8 every run crashed on 10 seeds, the last with: exit code"
        ):
            study(SETTINGS, crashing(lambda run: run.seed in unlucky and run.batch_size == 8), tmp_path)

    def test_a_batch_size_that_always_crashes_leaves_the_others_alone(self, tmp_path: Path) -> None:
        result, engine = study(SETTINGS, crashing(lambda run: run.batch_size == 32), tmp_path)
        good, bad = result.batches
        assert good.pairings[0].verdict("train_loss") is Verdict.NO_VALUE
        assert bad.margins is None
        assert bad.pairings[0].decisions == {}
        assert bad.sgd.effective_lr is None
        assert f"batch 32: on 8 seeds every run crashed, the last with: {ERROR}" in notes(result)
        assert not {run.seed for run in engine.runs if run.batch_size == 32} & CONFIRM

    def test_a_task_that_always_crashes_ends_soon(self, tmp_path: Path) -> None:
        engine = FakeEngine(crashing(lambda run: True))
        with pytest.raises(InputError, match=r"the first 8 runs all crashed, the last with: exit code 3: out of luck"):
            study(SETTINGS, engine, tmp_path, width=2)
        assert len(engine.runs) == 8


class TestCrashesOfOneRule:
    """A crash that the other rule does not share may be the rule's doing: it is a failure and scores like one."""

    def test_while_tuning_it_rules_the_rate_out(self, tmp_path: Path) -> None:
        bad = seeds("tune", 1)[0]

        def when(run: Run) -> bool:
            return run.seed == bad and run.momentum > 0 and run.effective_lr == 0.4

        result, _ = study(SETTINGS, crashing(when), tmp_path)
        for batch in result.batches:
            assert batch.sgd.effective_lr == 0.4
            assert batch.pairings[0].arm.effective_lr != 0.4
            (score,) = [s for s in batch.pairings[0].arm.tuning if s.effective_lr == 0.4]
            assert score.failed == 1

    def test_while_confirming_it_counts_against_the_rule(self, tmp_path: Path) -> None:
        result, _ = study(SETTINGS, crashing(lambda run: run.seed in CONFIRM and run.momentum > 0), tmp_path)
        for batch in result.batches:
            (pairing,) = batch.pairings
            assert pairing.verdict("train_loss") is Verdict.HURTS
            assert (
                pairing.arm.failed == pairing.arm.crashed == pairing.arm.runs == 16
            )  # no spread: the last stage decides
            assert pairing.arm.last_error == ERROR
            assert pairing.arm.train_loss == pytest.approx(UNTRAINED_LOSS)
        said = [line for line in notes(result) if "failed" in line]
        assert f"batch 8: 16 of 16 runs of SGDM (β = 0.9) failed, 16 without a result, the last: {ERROR}" in said


class TestComplete:
    def run(self, seed: int, momentum: float = 0.0) -> Run:
        return Run(8, 0.4, seed, momentum)

    def done(self, *outcomes: Outcome) -> dict[Run, Outcome]:
        return complete({o.run: o for o in outcomes}, outcomes)

    def test_the_untrained_values_of_the_same_seed(self) -> None:
        a, b = outcome(self.run(1), 0.5, untrained_loss=2.0), outcome(self.run(2), 0.5, untrained_loss=3.0)
        found = self.done(a, b, crashed(self.run(1, 0.9), ERROR))[self.run(1, 0.9)]
        assert found.failed
        assert found.score("train_loss") == 2.0
        assert found.score("test_accuracy") == UNTRAINED_ACCURACY

    def test_else_their_mean(self) -> None:
        a, b = outcome(self.run(1), 0.5, untrained_loss=2.0), outcome(self.run(2), 0.5, untrained_loss=3.0)
        assert self.done(a, b, crashed(self.run(3), ERROR))[self.run(3)].score("train_loss") == 2.5

    def test_else_the_worst_final_values(self) -> None:
        """A script that reports no untrained values."""
        unknown = dict.fromkeys(outcome(self.run(1), 0.5).untrained, NAN)
        a, b = (
            replace(outcome(self.run(seed), loss, accuracy), untrained=unknown)
            for seed, loss, accuracy in ((1, 0.5, 0.9), (2, 0.7, 0.8))
        )
        assert not a.failed
        diverged = replace(outcome(self.run(4), NAN, NAN), untrained=unknown)
        found = self.done(a, b, crashed(self.run(3), ERROR), diverged)
        for run in (self.run(3), self.run(4)):
            assert found[run].failed
            assert (found[run].score("train_loss"), found[run].score("test_accuracy")) == (0.7, 0.8)
        assert found[a.run] is a

    def test_nothing_changes_where_all_is_known(self) -> None:
        outcomes = {o.run: o for o in (outcome(self.run(1), 0.5), outcome(self.run(2), NAN))}
        assert complete(outcomes, []) == outcomes

    def test_what_all_seeds_share_comes_from_tuning(self) -> None:
        """A later run, however bad, does not change what an earlier crash scored."""
        tuned = outcome(self.run(1), 0.5, untrained_loss=2.0)
        crash, later = crashed(self.run(3), ERROR), outcome(self.run(4), 0.5, untrained_loss=50.0)
        for outcomes in ((tuned, crash), (tuned, crash, later)):
            found = complete({o.run: o for o in outcomes}, [tuned])
            assert found[crash.run].score("train_loss") == 2.0

    @settings(max_examples=50, deadline=None)
    @given(st.permutations(range(8)))
    def test_the_order_in_which_runs_came_does_not_matter(self, order: list[int]) -> None:
        unknown = dict.fromkeys(outcome(self.run(1), 0.5).untrained, NAN)
        made = [
            outcome(self.run(1), 0.5, untrained_loss=2.1),
            outcome(self.run(1, 0.9), 0.4, untrained_loss=2.2),  # a script may not repeat to the bit
            replace(outcome(self.run(1, 0.99), NAN, NAN), untrained=unknown),
            outcome(self.run(2), 0.7, untrained_loss=2.3),
            replace(outcome(self.run(2, 0.9), NAN, NAN), untrained=unknown),
            crashed(self.run(3), ERROR),
            outcome(self.run(4), 0.1, untrained_loss=0.1 + 0.2),
            outcome(self.run(5), 0.1, untrained_loss=1e-9),
        ]
        shuffled = [made[i] for i in order]
        found = complete({o.run: o for o in shuffled}, shuffled)
        expected = complete({o.run: o for o in made}, made)
        assert {run: o.score("train_loss") for run, o in found.items()} == {
            run: o.score("train_loss") for run, o in expected.items()
        }


def test_lost_seeds_are_those_on_which_every_run_crashed() -> None:
    runs = [Run(8, 0.4, seed, m) for seed in (1, 2, 3) for m in (0.0, 0.9)]
    made = [crashed(r, ERROR) if r.seed == 1 or (r.seed == 2 and r.momentum) else outcome(r, BEST_LOSS) for r in runs]
    assert lost_seeds(made) == {1}


class TestOrder:
    """Runs finish in any order, with many workers or processes; what is concluded from them does not depend on it."""

    def world(self, run: Run) -> Outcome:
        made = World({(8, 0.9): Effect(1.0, 1.5)})(run)
        draw = np.random.default_rng([run.seed, run.batch_size, int(100 * run.momentum), int(1e4 * run.effective_lr)])
        if draw.random() < 0.06 and run.seed in CONFIRM:
            return crashed(run, f"exit code {draw.integers(100)}")
        if draw.random() < 0.5:  # a script that does not always say what the untrained model does
            made = replace(made, untrained=dict.fromkeys(made.untrained, NAN))
        return made

    def test_a_study_read_again_says_the_same(self, tmp_path: Path) -> None:
        expected, _ = study(SETTINGS, self.world, tmp_path / "in order", width=1)
        assert any(p.arm.crashed for b in expected.batches for p in b.pairings)

        class Shuffled(FakeEngine):
            def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
                finished = list(super().compute(chunks))
                random.Random(len(finished)).shuffle(finished)
                return iter(finished)

        shuffled, _ = study(SETTINGS, Shuffled(self.world), tmp_path / "shuffled", width=1)
        again, engine = study(SETTINGS, self.world, tmp_path / "shuffled", width=1)
        assert engine.runs == []
        assert shuffled.batches == again.batches == expected.batches

    def test_a_finished_study_whose_first_runs_all_crashed_can_be_read(self, tmp_path: Path) -> None:
        """The eight crashes that end a study are counted where runs are computed, not where they are found."""

        class Reversed(FakeEngine):
            def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
                return iter(list(super().compute(chunks))[::-1])

        def at_the_lowest_rate(run: Run) -> bool:
            return run.effective_lr == 0.2 and run.seed in TUNE

        first, _ = study(SETTINGS, Reversed(crashing(at_the_lowest_rate)), tmp_path, width=2)
        again, engine = study(SETTINGS, World(), tmp_path, width=2)
        assert engine.runs == []
        assert again.batches == first.batches


def test_crashes_that_decide_a_rate_are_told(tmp_path: Path) -> None:
    """One crash of the machine, at the rate that SGD would have got, and SGD is compared at a worse one."""
    unlucky = Run(8, 0.4, seeds("tune", 1)[0], 0.0)
    result, _ = study(SETTINGS, crashing(lambda run: run == unlucky), tmp_path)
    arm = result.batches[0].sgd
    assert arm.effective_lr != 0.4
    assert arm.rate_without_crashes == 0.4
    (said,) = [line for line in notes(result) if "crashes while tuning" in line]
    assert said.startswith("batch 8: crashes while tuning decided the rate of SGD, which would be 0.4 without them; if")
    assert result.batches[1].sgd.rate_without_crashes is None


def test_selection_by_what_no_run_reports_is_refused(tmp_path: Path) -> None:
    def world(run: Run) -> Outcome:
        made = World()(run)
        return replace(made, final={**made.final, "validation_accuracy": NAN})

    by_accuracy = replace(SETTINGS, select="validation_accuracy")
    with pytest.raises(InputError, match="rates are to be selected by validation accuracy, but runs report none: have"):
        study(by_accuracy, world, tmp_path)
    result, _ = study(SETTINGS, world, tmp_path)  # the same runs do for selection by loss
    assert result.batches[0].pairings[0].verdict("train_loss") is Verdict.NO_VALUE


def test_a_measure_that_some_runs_do_not_report_is_told(tmp_path: Path) -> None:
    def world(run: Run) -> Outcome:
        made = World()(run)
        return replace(
            made, final={**made.final, "test_accuracy": NAN}, untrained={**made.untrained, "test_accuracy": NAN}
        )

    result, _ = study(SETTINGS, world, tmp_path)
    assert set(result.batches[0].pairings[0].decisions) == {"train_loss"}
    assert "batch 8, β 0.9: no verdict on test accuracy, which not all runs reported" in notes(result)


class TestPairsThatCrashWhole:
    """One criterion at every stage: a pair of which both runs crashed, at the selected rates, is replaced."""

    def test_at_the_first_stage_as_later(self, tmp_path: Path) -> None:
        unlucky = set(seeds("confirm", 40)[::4])
        world = crashing(
            lambda run: run.seed in unlucky and run.effective_lr == 0.4,
            World({(b, 0.9): Effect(1.0, 1.0) for b in (8, 32)}),
        )
        result, _ = study(SETTINGS, world, tmp_path)
        for batch in result.batches:
            (pairing,) = batch.pairings
            assert pairing.arm.effective_lr == batch.sgd.effective_lr == 0.4
            assert pairing.arm.crashed == batch.sgd.crashed == 0
            assert pairing.decisions["train_loss"].interval.n == 16
            assert batch.lost_seeds == 6  # of the first 22


def test_stop_needs_eight_crashes_and_no_result() -> None:
    crashes = [crashed(Run(8, 0.4, seed, 0.0), ERROR) for seed in range(20)]
    stop_if_all_crash(crashes[:7])
    stop_if_all_crash([*crashes[:7], outcome(Run(8, 0.4, 99, 0.0), 1.0), *crashes[7:]])
    with pytest.raises(InputError, match="the first 20 runs all crashed"):
        stop_if_all_crash(crashes)


class TestRetry:
    def test_stored_crashes_are_computed_again_only_when_asked(self, tmp_path: Path) -> None:
        unlucky = set(seeds("confirm", 3))
        first, _ = study(SETTINGS, crashing(lambda run: run.seed in unlucky and run.momentum > 0), tmp_path)
        again, engine = study(SETTINGS, World(), tmp_path)
        assert engine.runs == []
        assert again.batches == first.batches
        mended, engine = study(SETTINGS, World(), tmp_path, retry_failed=True)
        assert {run.seed for run in engine.runs} & unlucky == unlucky
        assert all(any(run.seed in unlucky for run in chunk.runs) for chunk in engine.chunks)
        assert mended.batches == study(SETTINGS, World(), tmp_path / "other")[0].batches
