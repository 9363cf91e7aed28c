"""The course of a comparison: tuning, growing grids, staged confirmation. Outcomes are made up, nothing is trained."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from fabricated import (
    BEST_LOSS,
    CONFIRM,
    MARGIN_ACCURACY,
    MARGIN_LOSS,
    TUNE,
    UNTRAINED_LOSS,
    Effect,
    FakeEngine,
    World,
    broken,
    outcome,
    study,
)
from lightball.stats import Verdict
from lightball.studies import as_json
from lightball.studies.result import JUDGED
from lightball.studies.runs import Chunk, Outcome, Run, pack, seeds
from lightball.studies.settings import Settings

GRID = (0.1, 0.2, 0.4, 0.8)
# What each effect, in margins, must come to with stages of 8, 16 and 32 pairs; the seeds are fixed.
EFFECTS = {
    (8, 0.9): (Effect(0.0, 0.1), Verdict.NO_VALUE, 1),
    (8, 0.99): (Effect(0.0, 0.6), Verdict.NO_VALUE, 2),
    (32, 0.9): (Effect(5.0, 0.5), Verdict.HELPS, 1),
    (32, 0.99): (Effect(-5.0, 0.5), Verdict.HURTS, 1),
    (128, 0.9): (Effect(1.0, 1.0), Verdict.UNDECIDED, 3),
    (128, 0.99): (Effect(3.0, 2.2), Verdict.HELPS, 3),
}
STAGES = (8, 16, 32)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    settings = Settings(batch_sizes=(8, 32, 128), momentum=(0.9, 0.99), lr=GRID, stages=STAGES, tuning_seeds=2)
    world = World({cell: effect for cell, (effect, _, _) in EFFECTS.items()})
    return study(settings, world, tmp_path_factory.mktemp("staged"))


class TestStaging:
    @pytest.mark.parametrize("cell", EFFECTS)
    def test_verdict_stage_and_pairs(self, staged, cell: tuple[int, float]) -> None:  # type: ignore[no-untyped-def]
        result, _ = staged
        _, verdict, stage = EFFECTS[cell]
        (pairing,) = [
            p for b in result.batches if b.batch_size == cell[0] for p in b.pairings if p.arm.momentum == cell[1]
        ]
        for measure in JUDGED:
            decision = pairing.decisions[measure]
            assert (decision.verdict, decision.stage, decision.interval.n) == (verdict, stage, STAGES[stage - 1])
            assert decision.final
            assert (decision.pairs_needed is not None) == (verdict is Verdict.UNDECIDED)

    def test_a_decided_comparison_gets_no_further_pairs(self, staged) -> None:  # type: ignore[no-untyped-def]
        """And an undecided one gets every pair of its last stage; SGD runs for the one that takes longest."""
        result, engine = staged
        count = Counter((r.batch_size, r.momentum, r.effective_lr) for r in engine.runs if r.seed in CONFIRM)
        for batch in result.batches:
            pairs = {p.arm.momentum: STAGES[EFFECTS[batch.batch_size, p.arm.momentum][2] - 1] for p in batch.pairings}
            for pairing in batch.pairings:
                arm = pairing.arm
                assert count[batch.batch_size, arm.momentum, arm.effective_lr] == arm.runs == pairs[arm.momentum]
            assert count[batch.batch_size, 0.0, batch.sgd.effective_lr] == batch.sgd.runs == max(pairs.values())

    def test_at_equal_rates_the_first_stage_is_all(self, staged) -> None:  # type: ignore[no-untyped-def]
        result, _ = staged
        for batch in result.batches:
            assert [(e.momentum, e.effective_lr) for e in batch.equal_rates] == [
                (m, lr) for m in (0.9, 0.99) for lr in GRID
            ]
            assert {i.n for e in batch.equal_rates for i in e.differences.values()} == {STAGES[0]}
            assert {i.confidence for e in batch.equal_rates for i in e.differences.values()} == {0.95}

    def test_confidence_is_shared_by_the_family(self, staged) -> None:  # type: ignore[no-untyped-def]
        result, _ = staged
        decision = result.batches[1].pairings[0].decisions["train_loss"]
        alpha = 0.05 * STAGES[0] / STAGES[-1]
        assert decision.interval.confidence == pytest.approx(1 - alpha / 12)

    def test_no_run_is_computed_twice(self, staged) -> None:  # type: ignore[no-untyped-def]
        result, engine = staged
        assert len(set(engine.runs)) == len(engine.runs) == result.computed_runs

    def test_tuning_and_confirmation_share_no_seed(self, staged) -> None:  # type: ignore[no-untyped-def]
        _, engine = staged
        tuning = [c for c in engine.chunks if c.runs[0].seed in TUNE]
        assert not TUNE & CONFIRM
        assert all({r.seed for r in c.runs} <= TUNE for c in tuning)
        assert all({r.seed for r in c.runs} <= CONFIRM for c in engine.chunks if c not in tuning)
        assert engine.chunks[: len(tuning)] == tuning

    def test_seeds_do_not_depend_on_the_arm_or_the_batch_size(self, staged) -> None:  # type: ignore[no-untyped-def]
        _, engine = staged
        cells: dict[tuple[int, float], set[int]] = {}
        for run in engine.runs:
            if run.seed in TUNE:
                cells.setdefault((run.batch_size, run.momentum), set()).add(run.seed)
        assert set(map(frozenset, cells.values())) == {frozenset(seeds("tune", 2))}

    def test_margins_are_what_the_tuning_runs_say(self, staged) -> None:  # type: ignore[no-untyped-def]
        result, _ = staged
        for batch in result.batches:
            assert batch.margins == pytest.approx({"train_loss": MARGIN_LOSS, "test_accuracy": MARGIN_ACCURACY})
        stored = json.loads((Path(result.folder) / "margins.json").read_text())
        del stored["digest"], stored["chosen"]
        assert stored == {str(b.batch_size): b.margins for b in result.batches}

    def test_sum_over_several_momenta(self, staged) -> None:  # type: ignore[no-untyped-def]
        span = staged[0].summary("train_loss")
        assert (span.no_value_up_to, span.helps_from) == (8, 32)

    def test_one_undecided_measure_keeps_the_pair_going_but_not_the_decided_one(self, tmp_path: Path) -> None:
        def world(run: Run) -> Outcome:
            made = World({(8, 0.9): Effect(1.0, 1.0)})(run)  # accuracy at its margin
            loss = BEST_LOSS + (0.5 if run.effective_lr != 0.4 else 0) + 1e-6 * run.momentum * (run.seed % 7)
            return outcome(run, loss, made.final["test_accuracy"])

        settings = Settings(batch_sizes=(8,), lr=GRID, stages=STAGES, tuning_seeds=2)
        decisions = study(settings, world, tmp_path)[0].batches[0].pairings[0].decisions
        assert (decisions["train_loss"].interval.n, decisions["test_accuracy"].interval.n) == (8, 32)


class TestOrder:
    def test_margins_are_stored_before_the_first_confirmation_run(self, tmp_path: Path) -> None:
        seen: list[dict[str, dict[str, float]]] = []

        def before(chunk: Chunk) -> None:
            stored = tmp_path / "margins.json"
            if chunk.runs[0].seed in CONFIRM:
                seen.append(json.loads(stored.read_text()))
            else:
                assert not stored.exists()

        settings = Settings(batch_sizes=(8, 32), lr=GRID, stages=(6, 12), tuning_seeds=2)
        result, _ = study(settings, FakeEngine(World({(8, 0.9): Effect(1, 1)}), before), tmp_path)
        assert len(seen) > 2
        for stored in seen:
            del stored["digest"], stored["chosen"]
        assert all(s == seen[0] == {str(b.batch_size): b.margins for b in result.batches} for s in seen)

    @pytest.mark.parametrize("width", [1, 2, 6, 28])
    def test_both_arms_of_a_pair_share_a_chunk(self, tmp_path: Path, width: int) -> None:
        settings = Settings(batch_sizes=(8, 32), momentum=(0.9, 0.99), lr=GRID, stages=(6, 12), tuning_seeds=3)
        result, engine = study(settings, World({(8, 0.9): Effect(1, 1)}), tmp_path, width)
        chunk_of = {run: i for i, chunk in enumerate(engine.chunks) for run in chunk.runs}
        for batch in result.batches:
            for pairing in batch.pairings:
                for seed in seeds("confirm", pairing.arm.runs):
                    sgd = Run(batch.batch_size, batch.sgd.effective_lr, seed, 0.0)  # type: ignore[arg-type]
                    sgdm = Run(batch.batch_size, pairing.arm.effective_lr, seed, pairing.arm.momentum)  # type: ignore[arg-type]
                    assert chunk_of[sgd] == chunk_of[sgdm]
        for run in engine.runs:
            if run.seed in TUNE:
                assert chunk_of[run] == chunk_of[Run(run.batch_size, run.effective_lr, run.seed, 0.0)]

    def test_the_plan_is_a_function_of_settings_and_outcomes(self, tmp_path: Path) -> None:
        settings = Settings(batch_sizes=(8, 32), lr=GRID, stages=(6, 12), tuning_seeds=3)
        world = World({(8, 0.9): Effect(1, 1)})
        first, second = (study(settings, world, tmp_path / name)[1].chunks for name in ("a", "b"))
        assert first == second

    def test_an_interrupted_study_goes_on_and_ends_alike(self, tmp_path: Path) -> None:
        settings = Settings(batch_sizes=(8, 32), lr=GRID, stages=(6, 12), tuning_seeds=3)
        world = World({(8, 0.9): Effect(1, 1)})
        whole, engine = study(settings, world, tmp_path / "whole")

        calls = iter(range(1000))

        def interrupt(_: Chunk) -> None:
            if next(calls) == len(engine.chunks) // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            study(settings, FakeEngine(world, interrupt), tmp_path / "parts")
        rest, engine_of_rest = study(settings, world, tmp_path / "parts")
        assert rest.batches == whole.batches
        assert rest.reused_runs + rest.computed_runs == whole.computed_runs
        assert engine_of_rest.chunks == engine.chunks[len(engine.chunks) // 2 :]

    def test_chunks_hold_at_most_their_width_in_whole_pairs(self) -> None:
        pairs = [[Run(8, 0.1, seed, m) for m in (0.0, 0.9)] for seed in range(7)]
        chunks = pack(pairs, width=6, compiled=False, phase="tune")
        assert [len(c.runs) for c in chunks] == [6, 6, 2]
        assert [r for c in chunks for r in c.runs] == [r for pair in pairs for r in pair]


class TestGrid:
    def settings(self, **options: object) -> Settings:
        return Settings(batch_sizes=(8,), lr=(0.2, 0.4), stages=(6,), tuning_seeds=2, **options)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("best", "expected"), [(0.05, 0.05), (1.6, 1.6), (0.3, 0.4)])
    def test_grows_until_the_selection_lies_inside(self, tmp_path: Path, best: float, expected: float) -> None:
        result, _ = study(self.settings(), World(best_lr=best), tmp_path)
        batch = result.batches[0]
        for arm in (batch.sgd, batch.pairings[0].arm):
            assert arm.effective_lr == expected
            assert not arm.at_edge
            tried = [s.effective_lr for s in arm.tuning]
            assert tried[0] < expected < tried[-1]
            assert [b / a for a, b in pairwise(tried)] == pytest.approx([2.0] * (len(tried) - 1))

    def test_all_rules_are_tuned_on_one_grid_grown_for_any_of_them(self, tmp_path: Path) -> None:
        def world(run: Run) -> Outcome:
            return World(best_lr=1.6 if run.momentum else 0.1)(run)

        result, _ = study(self.settings(), world, tmp_path)
        batch = result.batches[0]
        assert (batch.sgd.effective_lr, batch.pairings[0].arm.effective_lr) == (0.1, 1.6)
        grids = [[s.effective_lr for s in arm.tuning] for arm in (batch.sgd, batch.pairings[0].arm)]
        assert grids[0] == grids[1] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]

    @pytest.mark.parametrize(("best", "selected"), [(0.001, 0.05), (100.0, 1.6)])
    def test_the_cap_is_kept_and_said(self, tmp_path: Path, best: float, selected: float) -> None:
        result, _ = study(self.settings(max_extensions=2), World(best_lr=best), tmp_path)
        arm = result.batches[0].sgd
        assert arm.effective_lr == selected
        assert arm.at_edge
        assert len(arm.tuning) == 4

    def test_no_extensions(self, tmp_path: Path) -> None:
        result, _ = study(self.settings(max_extensions=0), World(best_lr=1.6), tmp_path)
        assert [s.effective_lr for s in result.batches[0].sgd.tuning] == [0.2, 0.4]
        assert result.batches[0].sgd.at_edge

    def test_a_rate_with_a_failed_seed_is_not_selected(self, tmp_path: Path) -> None:
        result, _ = study(self.settings(), World(best_lr=1.6, stable_below=1.0), tmp_path)
        arm = result.batches[0].sgd
        assert (arm.effective_lr, arm.at_edge, arm.failed) == (0.8, False, 0)
        assert arm.tuning[-1].failed == 2

    def test_tolerance_is_a_quarter_of_the_margin(self, tmp_path: Path) -> None:
        for share, expected in ((0.2, 0.1), (0.3, 0.2)):

            def world(run: Run, share: float = share) -> Outcome:
                excess = {0.05: 0.5, 0.1: share * MARGIN_LOSS, 0.2: 0.0}.get(run.effective_lr, 0.5)
                return outcome(run, BEST_LOSS + excess)

            settings = Settings(batch_sizes=(8,), lr=(0.05, 0.1, 0.2, 0.4), stages=(6,), tuning_seeds=2)
            result, _ = study(settings, world, tmp_path / str(share))
            assert result.batches[0].sgd.effective_lr == expected


class Sealed(dict[str, float]):
    """Values of which test accuracy must not be read."""

    def __getitem__(self, name: str) -> float:
        assert name != "test_accuracy", "tuning read the test set"
        return super().__getitem__(name)


class TestSelection:
    @staticmethod
    def sealed(run: Run) -> Outcome:
        """Training loss is best at 0.2, validation accuracy at 0.4, test accuracy at 0.8; sealed while tuning."""
        loss = BEST_LOSS + 0.5 * math.log2(run.effective_lr / 0.2) ** 2
        made = outcome(run, loss)
        final = {
            "train_loss": loss,
            "validation_accuracy": 0.9 - 0.1 * abs(math.log2(run.effective_lr / 0.4)),
            "test_accuracy": 0.9 - 0.1 * abs(math.log2(run.effective_lr / 0.8)),
        }
        if run.seed in CONFIRM:
            return Outcome(run, made.curve, made.untrained, final)  # type: ignore[arg-type]
        return Outcome(run, made.curve, Sealed(made.untrained), Sealed(final))  # type: ignore[arg-type]

    @pytest.mark.parametrize(("select", "expected"), [("train_loss", 0.2), ("validation_accuracy", 0.4)])
    def test_by_what_was_asked_and_never_by_the_test_set(self, tmp_path: Path, select: str, expected: float) -> None:
        settings = Settings(batch_sizes=(8,), lr=(0.1, 0.2, 0.4, 0.8), stages=(6,), tuning_seeds=2, select=select)  # type: ignore[arg-type]
        result, _ = study(settings, self.sealed, tmp_path)
        assert result.batches[0].sgd.effective_lr == expected


def strict_json(value: object) -> str:
    return json.dumps(value, allow_nan=False)


class TestFailure:
    def test_no_rate_trains_for_any_rule(self, tmp_path: Path) -> None:
        settings = Settings(batch_sizes=(8,), lr=(0.2, 0.4), stages=(6, 12), tuning_seeds=2, max_extensions=2)
        result, _ = study(settings, broken, tmp_path)
        batch = result.batches[0]
        assert batch.margins is None
        for arm in (batch.sgd, batch.pairings[0].arm):
            assert (arm.effective_lr, arm.train_loss, arm.test_accuracy, arm.runs) == (None, None, None, 0)
            assert arm.at_edge
            assert [s.effective_lr for s in arm.tuning] == [0.05, 0.1, 0.2, 0.4]  # smaller rates were tried
            assert all(s.failed == 2 for s in arm.tuning)
        assert batch.pairings[0].decisions == {}
        found = json.loads(strict_json(as_json(result)))["batch_sizes"][0]
        assert found["margins"] is None
        assert found["sgd"]["effective_lr"] is found["sgd"]["train_loss"] is found["sgdm"][0]["difference"] is None
        assert result.summary("train_loss").helps_from is None

    def test_one_rule_fails_everywhere(self, tmp_path: Path) -> None:
        def world(run: Run) -> Outcome:
            return World()(run) if run.momentum else broken(run)

        settings = Settings(batch_sizes=(8, 32), lr=GRID, stages=(6,), tuning_seeds=2, max_extensions=1)
        result, _ = study(settings, world, tmp_path)
        for batch in result.batches:
            assert batch.sgd.effective_lr is None
            assert batch.pairings[0].arm.effective_lr == 0.4
            assert batch.pairings[0].verdict("train_loss") is Verdict.UNDECIDED
            assert batch.equal_rates[0].failed_sgd == 6
        strict_json(as_json(result))

    def test_failures_in_confirmation_are_scored_counted_and_shown(self, tmp_path: Path) -> None:
        unlucky = set(seeds("confirm", 3))

        def world(run: Run) -> Outcome:
            return broken(run) if run.seed in unlucky and not run.momentum else World()(run)

        settings = Settings(batch_sizes=(8,), lr=GRID, stages=(6,), tuning_seeds=2)
        batch = study(settings, world, tmp_path)[0].batches[0]
        assert (batch.sgd.failed, batch.sgd.runs) == (3, 6)
        assert batch.sgd.train_loss is not None
        assert (UNTRAINED_LOSS + BEST_LOSS) / 2 <= batch.sgd.train_loss < UNTRAINED_LOSS

    def test_only_one_batch_size_fails(self, tmp_path: Path) -> None:
        def world(run: Run) -> Outcome:
            return broken(run) if run.batch_size == 8 else World()(run)

        settings = Settings(batch_sizes=(8, 32), lr=GRID, stages=(6,), tuning_seeds=2, max_extensions=0)
        result, _ = study(settings, world, tmp_path)
        assert [b.margins is None for b in result.batches] == [True, False]
        assert result.batches[1].pairings[0].verdict("train_loss") is Verdict.NO_VALUE
