"""Advice held against runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from lightball.errors import InputError
from lightball.forecast.advice import Advice
from lightball.forecast.advising import advise
from lightball.forecast.measured import MeasuredValue, measured_value
from lightball.forecast.phases import Effort, phases_of
from lightball.oracles import build
from lightball.rules import Setting
from lightball.stats import Verdict
from lightball.studies.settings import Settings
from lightball.studies.verification import interval_of, verify
from lightball.training import Recipe, train
from lightball.workloads import Workload
from lightball.workloads.digits import digits

SETTING = Setting("ema", 0.05, 0.9)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return digits()


@pytest.fixture(scope="module")
def advice(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Advice:
    """On weights from the midst of a training."""
    place = tmp_path_factory.mktemp("weights")
    train(workload, Recipe(64, 0.2, epochs=3), seed=0, folder=place)
    (weights,) = sorted((place / "checkpoints").glob("step-*"))[-1:]
    phases = phases_of(
        workload,
        effective_lr=0.05,
        momentum=0.9,
        batch_size=256,
        num_steps=50,
        checkpoint=weights,
        effort=Effort(noise_vectors=4, keep_weights=True),
    )
    return advise(phases, SETTING, 256, num_steps=50, sampling="iid", margin=1e-4)


def changed(advice: Advice, **value: object) -> Advice:
    """The same advice with another forecast at its main phase."""
    at = advice.by_phase[advice.main]
    others = (*advice.by_phase[: advice.main], replace(at, value=replace(at.value, **value)))
    return replace(advice, by_phase=(*others, *advice.by_phase[advice.main + 1 :]))


def test_the_forecast_agrees_with_pairs_from_the_weights_that_were_probed(workload: Workload, advice: Advice) -> None:
    found = verify(workload, advice, tuned=False, most_pairs=32)
    equal = found.equal_rates
    assert advice.value_of_momentum.valid
    assert found.tuned is None
    assert equal.agrees
    assert equal.measured_verdict is advice.value_of_momentum.verdict is Verdict.HURTS
    assert equal.measured.mean == pytest.approx(advice.value_of_momentum.difference, rel=0.25)
    assert equal.sentence.endswith("they agree.")
    model = build(workload.model, 0)
    model.load_state_dict(advice.by_phase[advice.main].phase.weights)
    direct = measured_value(workload, model, [0.05], batch_size=256, num_steps=50, most_pairs=32)[0.05, 50]
    assert equal.measured.mean == direct.mean


def test_a_wrong_forecast_is_told(workload: Workload, advice: Advice) -> None:
    wrong = changed(advice, difference=1.0, low=0.9, high=1.1, verdict=Verdict.HELPS)
    equal = verify(workload, wrong, tuned=False, most_pairs=16).equal_rates
    assert equal.agrees is False
    assert equal.sentence.endswith("they do not agree.")


def test_a_forecast_that_is_not_valid_neither_agrees_nor_fails(workload: Workload, advice: Advice) -> None:
    equal = verify(
        workload, changed(advice, valid=False, reason="beyond stability"), tuned=False, most_pairs=16
    ).equal_rates
    assert equal.agrees is None
    assert "beyond stability" in equal.sentence


def test_tuned_runs_are_compared_at_the_batch_size_of_the_advice(
    workload: Workload, advice: Advice, tmp_path: Path
) -> None:
    short = replace(advice, best_tuned=replace(advice.best_tuned, epochs=6, verdict=Verdict.HELPS, valid=True))
    settings = Settings(lr=(0.4, 0.8, 6.4), stages=(6,), tuning_seeds=1, max_extensions=0, compile="off")
    found = verify(workload, short, most_pairs=16, settings=settings, out=tmp_path, workers=1)
    assert found.tuned.measured.verdict is Verdict.HELPS
    assert found.tuned.agrees
    assert found.tuned.sgdm_lr > found.tuned.sgd_lr
    assert len(found.sentences) == 2
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["best_tuned"]["agrees"] is True


def test_a_checkpoint_is_measured_from_its_own_weights(workload: Workload, advice: Advice, tmp_path: Path) -> None:
    weights = advice.by_phase[advice.main].phase.weights
    save_file(dict(weights), tmp_path / "weights.safetensors")
    at = advice.by_phase[advice.main]
    alone = replace(advice, by_phase=(replace(at, phase=replace(at.phase, weights=None)),), main=0)
    found = verify(workload, alone, checkpoint=tmp_path / "weights.safetensors", most_pairs=16)
    kept = verify(workload, advice, tuned=False, most_pairs=16)
    assert found.equal_rates.measured == kept.equal_rates.measured
    assert found.tuned is None
    with pytest.raises(InputError, match="the weights that were probed are not at hand"):
        verify(workload, alone)


def test_an_interval_needs_runs_that_all_live() -> None:
    alive = MeasuredValue(0.1, 10, 0.5, 0.1, 1.0, 0.5, pairs=16)
    assert interval_of(alive).low == pytest.approx(0.5 - 2.131 * 0.1, abs=1e-3)
    assert interval_of(replace(alive, failed_sgd=1)) is None
    assert interval_of(replace(alive, mean=math.nan)) is None
