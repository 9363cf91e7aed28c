"""Which runs there are: both rules tuned or SGDM alone, confirmed at all rates or at the selected ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fabricated
from fabricated import CONFIRM, TUNE, FakeEngine, World, broken, outcome, study
from lightball.studies.plan import count_runs, one_by_one
from lightball.studies.runs import Outcome, Run
from lightball.studies.settings import Settings
from lightball.studies.study import read_study

SETTINGS = Settings(batch_sizes=(8,), lr=(0.2, 0.4, 0.8), stages=(6, 12), tuning_seeds=2, max_extensions=0)
WORLD = World(best_lr=0.4)


def counted(settings: Settings, world: Any, folder: Path) -> tuple[Any, Counter[tuple[str, float, float]]]:
    """The result, and how many runs there were by phase, momentum and rate."""
    result, engine = study(settings, world, folder)
    assert isinstance(engine, FakeEngine)
    assert all((run.seed in TUNE) != (run.seed in CONFIRM) for run in engine.runs)
    phases = Counter(("tune" if r.seed in TUNE else "confirm", r.momentum, r.effective_lr) for r in engine.runs)
    return result, phases


class TestConfirmingSelectedRates:
    SETTINGS = replace(SETTINGS, confirm_rates="selected")

    def test_no_other_rate_is_run_on_fresh_seeds(self, tmp_path: Path) -> None:
        result, runs = counted(self.SETTINGS, WORLD, tmp_path)
        confirmed = {place: n for place, n in runs.items() if place[0] == "confirm"}
        assert confirmed == {("confirm", 0.0, 0.4): 6, ("confirm", 0.9, 0.4): 6}
        assert [row.effective_lr for row in result.batches[0].equal_rates] == [0.4]  # which both rules have selected

    def test_the_verdict_is_that_of_the_whole_grid(self, tmp_path: Path) -> None:
        whole, _ = counted(SETTINGS, WORLD, tmp_path / "grid")
        selected, _ = counted(self.SETTINGS, WORLD, tmp_path / "selected")
        assert selected.batches[0].pairings == whole.batches[0].pairings
        assert len(whole.batches[0].equal_rates) == 3

    def test_rules_at_different_rates_are_paired_by_seed(self, tmp_path: Path) -> None:
        def world(run: Run) -> Outcome:
            return World(best_lr=0.8 if run.momentum else 0.2)(run)

        result, runs = counted(self.SETTINGS, world, tmp_path)
        assert {place: n for place, n in runs.items() if place[0] == "confirm"} == {
            ("confirm", 0.0, 0.2): 6,
            ("confirm", 0.9, 0.8): 6,
        }
        (batch,) = result.batches
        assert batch.pairings[0].decisions["train_loss"].interval.n == 6
        assert batch.equal_rates == ()

    def test_nothing_is_confirmed_where_a_rule_has_no_rate(self, tmp_path: Path) -> None:
        result, runs = counted(self.SETTINGS, lambda r: broken(r) if r.momentum else WORLD(r), tmp_path)
        assert {phase for phase, _, _ in runs} == {"tune"}
        assert result.batches[0].pairings[0].decisions == {}
        assert read_study(tmp_path).finished

    @pytest.mark.parametrize("decisive", [True, False])
    def test_the_plan_counts_the_runs(self, tmp_path: Path, decisive: bool) -> None:
        def undecided(run: Run) -> Outcome:
            odd = run.momentum and run.seed in CONFIRM and run.seed % 2
            return outcome(run, WORLD(run).final["train_loss"] + (0.3 if odd else 0.0))

        _, runs = counted(self.SETTINGS, WORLD if decisive else undecided, tmp_path)
        counts = count_runs(self.SETTINGS)
        assert (counts.tuning, counts.fewest, counts.most) == (12, 12, 24)
        assert runs.total() == counts.tuning + (counts.fewest if decisive else counts.most)


class TestTuningMomentumAlone:
    SETTINGS = replace(SETTINGS, tune="sgdm")

    def test_sgd_takes_its_rate(self, tmp_path: Path) -> None:
        """Even where another would suit SGD better."""

        def world(run: Run) -> Outcome:
            return World(best_lr=0.4 if run.momentum else 0.8)(run)

        result, runs = counted(self.SETTINGS, world, tmp_path)
        assert {place: n for place, n in runs.items() if place[0] == "tune"} == {
            ("tune", 0.9, rate): 2 for rate in self.SETTINGS.lr
        }
        (batch,) = result.batches
        assert (batch.sgd.effective_lr, batch.pairings[0].arm.effective_lr) == (0.4, 0.4)
        assert (batch.sgd.tuning, len(batch.pairings[0].arm.tuning)) == ((), 3)
        assert batch.sgd.runs == batch.pairings[0].arm.runs == 6
        assert str(batch.pairings[0].verdict("train_loss")) == "helps"  # 0.2 of loss are ten margins

    def test_the_grid_grows_for_it_alone(self, tmp_path: Path) -> None:
        def world(run: Run) -> Outcome:
            return World(best_lr=0.4 if run.momentum else 6.4)(run)

        _, runs = counted(replace(self.SETTINGS, max_extensions=4), world, tmp_path)
        assert max(rate for _, _, rate in runs) == 0.8

    def test_the_plan_counts_the_runs(self, tmp_path: Path) -> None:
        for confirmed, fewest in (("grid", 36), ("selected", 12)):
            settings = replace(self.SETTINGS, confirm_rates=confirmed)
            plan = one_by_one(settings, None, 1)
            assert (plan.batches[0].tuning_runs, plan.batches[0].confirmation_runs[0]) == (6, fewest)
            _, runs = counted(settings, WORLD, tmp_path / confirmed)
            assert runs.total() == plan.runs[0]

    def test_a_folder_tells_the_same(self, tmp_path: Path) -> None:
        result, _ = counted(self.SETTINGS, WORLD, tmp_path)
        there = read_study(tmp_path)
        assert there.finished
        assert there.result.batches == result.batches


def test_both_belong_to_the_analysis_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a narrower comparison are found by a wider one, where every run is a chunk."""
    monkeypatch.setattr(fabricated, "plan_for", lambda settings, width: one_by_one(settings, None, 1))
    _, engine = study(replace(SETTINGS, tune="sgdm", confirm_rates="selected"), WORLD, tmp_path, width=1)
    before = set(engine.runs)
    result, engine = study(SETTINGS, WORLD, tmp_path, width=1)
    assert result.reused_runs == len(before) > 0
    assert not before & set(engine.runs)
