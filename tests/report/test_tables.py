"""The tables behind the figures hold what the outcomes say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lightball
from fabricated import TUNE, UNTRAINED_LOSS, Effect, FakeEngine, World, outcome, study
from lightball.report import curves, tables
from lightball.studies.runs import Outcome, Run, crashed, seeds
from lightball.studies.settings import Settings
from lightball.studies.study import Study, read_study

SETTINGS = Settings(batch_sizes=(8, 32), lr=(0.2, 0.4, 0.8, 1.6), stages=(8, 16), max_extensions=0)
WORLD = World({(8, 0.9): Effect(0, 0.1), (32, 0.9): Effect(5, 0.5)}, stable_below=1.6)

TUNE_OF_STUDY = seeds("tune", SETTINGS.tuning_seeds)


def made(folder: Path, world: Any = WORLD, settings: Settings = SETTINGS) -> Study:
    study(settings, FakeEngine(world), folder)
    return read_study(folder)


def test_rates_are_those_of_the_stored_runs(tmp_path: Path) -> None:
    """Compared with the table of all runs, which knows nothing of comparisons."""
    rows = tables.rates(made(tmp_path)).to_pylist()
    runs = lightball.load(tmp_path).to_pylist()
    assert len(rows) == 2 * 2 * 4
    for row in rows:
        place = (row["batch_size"], row["momentum"], row["effective_lr"])
        mine = [r for r in runs if (r["batch_size"], r["momentum"], r["effective_lr"]) == place]
        assert row["runs"] == len(mine)
        assert row["failed"] == sum(r["failed"] for r in mine)
        mine = [r for r in mine if r["phase"] == "confirm"]
        scores = [r["untrained_train_loss"] if r["failed"] else r["final_train_loss"] for r in mine]
        assert row["phase"] == "confirmation"
        assert (row["failed"] > 0) == (row["effective_lr"] == 1.6)
        assert row["train_loss"] == pytest.approx(np.mean(scores))
        spread = (None, None) if row["effective_lr"] == 1.6 else (min(scores), max(scores))
        assert (row["train_loss_low"], row["train_loss_high"]) == spread
        assert row["selected"] == (row["effective_lr"] == 0.4)
        assert row["stable"] == (row["effective_lr"] == 0.8)
        assert row["label"] == ("SGDM β = 0.9" if row["momentum"] else "SGD")


def test_rates_of_tuning_stand_in_until_others_are_finished(tmp_path: Path) -> None:
    def world(run: Run) -> Outcome:
        if run.seed not in TUNE:
            raise KeyboardInterrupt
        return WORLD(run)

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, world)
    found = read_study(tmp_path)
    rows = tables.rates(found).to_pylist()
    assert {row["phase"] for row in rows} == {"tuning"}
    assert {row["runs"] for row in rows} == {SETTINGS.tuning_seeds}
    assert sum(row["selected"] for row in rows) == 4
    assert tables.differences(found).num_rows == tables.speed(found).num_rows == 0
    assert curves.curves(found).means.num_rows == 0


def test_a_failure_while_tuning_counts_too(tmp_path: Path) -> None:
    def world(run: Run) -> Outcome:
        unlucky = run.momentum and run.effective_lr == 0.8 and run.seed == min(TUNE_OF_STUDY)
        return outcome(run, math.inf, failed_at=3) if unlucky else World()(run)

    rows = [r for r in tables.rates(made(tmp_path, world)).to_pylist() if r["momentum"]]
    assert [r["failed"] for r in rows if r["effective_lr"] == 0.8] == [1, 1]
    assert {r["effective_lr"] for r in rows if r["stable"]} == {0.4}


def test_no_rate_is_the_last_stable_one_where_none_failed(tmp_path: Path) -> None:
    assert not any(tables.rates(made(tmp_path, World()))["stable"].to_pylist())


def test_curves_of_a_running_study_have_the_seeds_of_its_verdicts(tmp_path: Path) -> None:
    """Later stages are finished for one rule first."""
    undecided = World({(8, 0.9): Effect(1.0, 0.5)})
    last = SETTINGS.stages[1]

    def world(run: Run) -> Outcome:
        if run.momentum and run.seed == seeds("confirm", last)[-1]:
            raise KeyboardInterrupt
        return undecided(run)

    with pytest.raises(KeyboardInterrupt):
        study(replace(SETTINGS, batch_sizes=(8,)), FakeEngine(world), tmp_path, width=1)
    found = read_study(tmp_path)
    assert not found.finished
    assert len(found.batches[0].confirmed) > len(SETTINGS.lr) * 2 * SETTINGS.stages[0]
    table = curves.curves(found)
    assert set(table.means["runs"].to_pylist()) == {SETTINGS.stages[0]}
    arm = found.result.batches[0].sgd
    assert [r["loss"] for r in table.means.to_pylist() if r["rule"] == "SGD"] == pytest.approx(list(arm.curve))


def test_one_failure_ends_the_stable_rates(tmp_path: Path) -> None:
    def world(run: Run) -> Outcome:
        unlucky = run.momentum and run.effective_lr == 0.4 and run.seed % 5 == 0
        return outcome(run, math.inf, failed_at=3) if unlucky else World()(run)

    rows = [r for r in tables.rates(made(tmp_path, world)).to_pylist() if r["batch_size"] == 8 and r["momentum"]]
    failed = {r["effective_lr"]: r["failed"] for r in rows}
    assert 0 < failed[0.4] < 16
    assert [r["effective_lr"] for r in rows if r["stable"]] == [0.2]
    assert max(r["train_loss_high"] or 0 for r in rows) == UNTRAINED_LOSS


def test_differences_are_the_decisions(tmp_path: Path) -> None:
    found = made(tmp_path)
    rows = {(r["batch_size"], r["measure"]): r for r in tables.differences(found).to_pylist()}
    assert len(rows) == 4
    for batch in found.result.batches:
        for measure, decision in batch.pairings[0].decisions.items():
            row = rows[batch.batch_size, measure]
            assert (row["mean"], row["low"]) == (decision.interval.mean, decision.interval.low)
            assert (row["margin"], row["verdict"]) == (decision.margin, str(decision.verdict))
    assert {r["verdict"] for r in rows.values()} == {"no value", "helps"}


def test_curves_are_means_over_the_confirmed_runs(tmp_path: Path) -> None:
    found = made(tmp_path)
    table = curves.curves(found)
    assert table.thinned == ""
    arm = found.result.batches[1].pairings[0].arm
    mine = [r for r in table.means.to_pylist() if r["batch_size"] == 32 and r["rule"] == "SGDM"]
    assert [r["loss"] for r in mine] == pytest.approx(list(arm.curve))
    assert [r["epoch"] for r in mine] == [0, 1, 2]
    assert {r["runs"] for r in mine} == {arm.runs}
    singles = [r for r in table.pairs.to_pylist() if r["batch_size"] == 32]
    assert sorted(r["pair"] for r in singles if r["rule"] == "SGD") == list(range(1, arm.runs + 1))
    runs = lightball.load(tmp_path).to_pylist()
    runs = [r for r in runs if (r["batch_size"], r["effective_lr"], r["phase"]) == (32, 0.4, "confirm")]
    for pair in range(1, arm.runs + 1):  # both of a pair have the same seed
        seeds = []
        for beta in (0.0, 0.9):
            (shown,) = [r["loss"] for r in singles if (r["pair"], r["momentum"]) == (pair, beta)]
            seeds.append({r["seed"] for r in runs if r["curve"] == shown and r["momentum"] == beta})
        assert seeds[0] & seeds[1]


def test_long_curves_are_thinned_and_it_is_said(tmp_path: Path) -> None:
    def world(run: Run) -> Outcome:
        short = WORLD(run)
        return replace(short, curve=tuple(np.linspace(2.3, short.curve[-1], 1001).tolist()))

    settings = replace(SETTINGS, batch_sizes=(4, 8, 16, 32), momentum=(0.5, 0.9, 0.99), stages=(64,), tuning_seeds=1)
    table = curves.curves(made(tmp_path, world, settings))
    points = sum(len(r["loss"]) for r in table.pairs.to_pylist())
    assert 20_000 < points <= curves.POINTS_OF_SINGLES
    assert table.means.num_rows == 16 * curves.POINTS_OF_MEAN
    assert table.thinned.startswith("mean curves show 80 of 1001 points, single ones ")
    by_rule = {r["epoch"] for r in table.means.to_pylist()}
    assert {0, 1000} <= by_rule


def test_crashed_runs_are_counted_and_have_no_numbers_of_their_own(tmp_path: Path) -> None:
    def world(run: Run) -> Outcome:
        return crashed(run, "killed") if run.momentum and run.effective_lr == 0.8 else World()(run)

    rows = [r for r in tables.rates(made(tmp_path, world)).to_pylist() if r["crashed"]]
    assert {(r["rule"], r["effective_lr"]) for r in rows} == {("SGDM", 0.8)}
    assert all(r["crashed"] == r["failed"] == r["runs"] for r in rows)
    assert all(r["train_loss"] == pytest.approx(UNTRAINED_LOSS) for r in rows)


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    """A script may report no accuracy."""

    def world(run: Run) -> Outcome:
        full = World()(run)
        return replace(
            full,
            final={**full.final, "test_accuracy": math.nan},
            untrained={**full.untrained, "test_accuracy": math.nan},
        )

    found = made(tmp_path, world)
    assert tables.rates(found)["test_accuracy"].null_count == tables.rates(found).num_rows
    assert set(tables.differences(found)["measure"].to_pylist()) == {"train_loss"}
