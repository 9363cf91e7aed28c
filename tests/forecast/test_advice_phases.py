"""Phases of a short training of digits, and checkpoints that fit or do not."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightball.errors import InputError
from lightball.forecast.advising import advise
from lightball.forecast.best_tuned import best_tuned
from lightball.forecast.critical import critical_batch_size
from lightball.forecast.loading import load_checkpoint
from lightball.forecast.phase import Phases
from lightball.forecast.phases import Effort, phases_of
from lightball.oracles import build
from lightball.rules import Setting
from lightball.stats import Verdict
from lightball.training import Recipe, train
from lightball.workloads import Workload
from lightball.workloads.digits import digits

QUICK = Effort(examples=64, curvature_examples=64, horizon=0.0, noise_vectors=2, trial_steps=0)
LITTLE = replace(QUICK, most_steps=500, examples=256, curvature_examples=256, trial_steps=60, keep_weights=True)
RUN = {"effective_lr": 0.5, "momentum": 0.9, "batch_size": 64}


@pytest.fixture(scope="module")
def workload() -> Workload:
    return digits()


@pytest.fixture(scope="module")
def phases(workload: Workload) -> Phases:
    return phases_of(workload, **RUN, effort=LITTLE)


def generators() -> tuple[object, ...]:
    return (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_there_are_three_phases_on_the_way_and_a_curve_with_curvature(phases: Phases) -> None:
    assert [phase.name for phase in phases.phases] == ["start", "middle", "end"]
    times = [phase.time for phase in phases.phases]
    assert 0 < times[0] < times[1] / 3 < times[2] / 6
    curve = phases.curve
    assert [point.time for point in curve] == sorted({point.time for point in curve})
    assert curve[0].loss == pytest.approx(2.3, abs=0.05)
    assert curve[-1].loss < 0.2
    assert curve[-1].time == times[2]
    # Sharpening on the way, as along gradient flow: 0.7 at the start, some 4 at the most.
    assert curve[0].sharpness == pytest.approx(0.73, abs=0.15)
    assert 3 < max(point.sharpness for point in curve) < 7
    assert phases.parameter_bytes == 9610 * 4
    assert phases.from_start


def test_the_curve_is_that_of_gradient_flow(phases: Phases) -> None:
    at = {round(point.time): point.loss for point in phases.curve}
    time = min(at, key=lambda t: abs(t - 20))
    assert at[time] == pytest.approx(0.396 * (time / 20) ** -1.0, rel=0.15)


def test_probes_are_those_of_the_weights_that_were_kept(phases: Phases, workload: Workload) -> None:
    model = build(workload.model, 0)
    for phase in phases.phases:
        model.load_state_dict(phase.weights)
        loss = workload.loss(model(workload.train.inputs), workload.train.targets).mean().item()
        point = next(p for p in phases.curve if p.time == phase.time)
        assert point.loss == pytest.approx(loss, rel=1e-5)
        assert phase.probe.loss == pytest.approx(loss, rel=0.3)  # on 256 of the examples
        assert phase.probe.training_examples == 1078


def test_trials_of_sgd_go_on_beyond_stability_until_they_are_no_good(phases: Phases) -> None:
    rates, losses = ([getattr(trial, name) for trial in phases.trials] for name in ("effective_lr", "loss"))
    sharpest = max(point.sharpness for point in phases.curve)
    assert rates[0] == pytest.approx(2 / sharpest)
    assert all(b / a == pytest.approx(2**0.5) for a, b in pairwise(rates))
    assert min(losses[:3]) < 0.3  # some way beyond 2/λ SGD still trains well
    assert losses[-1] > 2 * min(losses)
    assert rates[-1] < 8 / sharpest * 1.5


def test_tuned_runs_are_predicted_as_compare_finds_them(phases: Phases) -> None:
    verdicts = {b: best_tuned(phases, 0.9, b, epochs=24).verdict for b in (8, 512)}
    assert verdicts == {8: Verdict.NO_VALUE, 512: Verdict.HELPS}
    assert 26 < critical_batch_size(phases, 0.9, epochs=24).value < 105


def test_nothing_around_it_changes_and_the_seed_decides(workload: Workload) -> None:
    tiny = replace(QUICK, most_steps=50, trial_steps=2, trial_seeds=1)
    torch.manual_seed(3)
    before, told = generators(), []
    first = phases_of(workload, **RUN, epochs=1, effort=tiny, progress=lambda *news: told.append(news))
    assert generators() == before
    assert torch.is_grad_enabled()
    torch.rand(7)
    again = phases_of(workload, **RUN, epochs=1, effort=tiny)
    assert (again.curve, again.trials) == (first.curve, first.trials)
    assert [at.probe.to_json() for at in again.phases] == [at.probe.to_json() for at in first.phases]
    other = phases_of(workload, **RUN, epochs=1, effort=tiny, seed=1)
    assert other.curve != first.curve
    assert {what.partition(":")[0] for what, _, _ in told} == {"training", "start", "middle", "end", "rates"}
    done = [place for what, place, _ in told if what == "training"]
    assert done == sorted(done)
    assert done[-1] == 1000


def test_a_small_rate_makes_a_training_as_long_as_sgd_could_go(workload: Workload) -> None:
    tiny = replace(QUICK, most_steps=60)
    slow = phases_of(workload, effective_lr=1e-4, momentum=0.9, batch_size=64, epochs=2, effort=tiny)
    assert slow.phases[-1].time > 1.0  # not 1e-4 · 32


def test_a_checkpoint_is_one_phase_with_the_path_ahead(workload: Workload, tmp_path: Path) -> None:
    model = build(workload.model, 5)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    effort = Effort(examples=128, curvature_examples=128, horizon=1.0, noise_vectors=2)
    found = phases_of(workload, **RUN, checkpoint=tmp_path / "weights.safetensors", effort=effort)
    (only,) = found.phases
    assert (only.name, only.time, found.from_start) == ("checkpoint", 0.0, False)
    loss = workload.loss(model(workload.train.inputs), workload.train.targets).mean().item()
    assert only.probe.loss == pytest.approx(loss, rel=0.05)
    assert found.curve[-1].time == pytest.approx(1.0)
    assert found.curve[-1].loss < found.curve[0].loss
    advice = advise(found, Setting("torch", 0.001, 0.9), 64, num_steps=20)
    assert advice.phases[advice.main].name == "checkpoint"


def test_a_checkpoint_of_our_own_training_is_read(workload: Workload, tmp_path: Path) -> None:
    recipe = Recipe(512, 0.1, 0.9)
    history = train(workload, recipe, seed=2, folder=tmp_path)
    (place,) = (tmp_path / "checkpoints").glob("step-*")
    model = build(workload.model, 0)
    load_checkpoint(model, place)
    loss = workload.loss(model(workload.train.inputs), workload.train.targets).mean().item()
    assert loss == pytest.approx(history.points[-1].train_loss, rel=1e-5)


def test_a_checkpoint_that_does_not_fit_is_refused_with_its_keys(workload: Workload, tmp_path: Path) -> None:
    saved = dict(build(workload.model, 0).state_dict())
    saved["2.bias"] = torch.zeros(7)
    saved["head.weight"] = saved.pop("2.weight")
    save_file(saved, tmp_path / "other.safetensors")
    model = build(workload.model, 0)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(InputError) as refused:
        load_checkpoint(model, tmp_path / "other.safetensors")
    text = str(refused.value)
    assert "missing: 2.weight; unexpected: head.weight; wrong shape: 2.bias (7,) for (10,)" in text
    assert "\n" not in text
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_many_keys_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"missing: 0\.weight, 0\.bias, 1\.weight, 1\.bias and 2 more"):
        load_checkpoint(torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(3))), tmp_path / "x.safetensors")


def test_a_file_that_is_damaged_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "damaged.safetensors").write_bytes(b"not tensors")
    for name, told in (("damaged.safetensors", "cannot read the checkpoint"), ("none", "there is no checkpoint")):
        with pytest.raises(InputError, match=told):
            load_checkpoint(torch.nn.Linear(1, 1), tmp_path / name)


def test_tied_weights_may_be_saved_once(tmp_path: Path) -> None:
    def tied() -> torch.nn.Module:
        first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        second.weight = first.weight
        return torch.nn.Sequential(first, second)

    source, target = tied(), tied()
    save_file({k: v for k, v in source.state_dict().items() if k != "1.weight"}, tmp_path / "tied.safetensors")
    load_checkpoint(target, tmp_path / "tied.safetensors")
    assert torch.equal(target[1].weight, source[0].weight)
    assert target[1].weight is target[0].weight
