"""The value of momentum measured on pairs, held against a plain loop."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.forecast.measured import measured_value
from lightball.oracles import Sampling, build
from lightball.workloads import Data, Workload


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def workload() -> Workload:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(96, 4, generator=random)
    data = Data(inputs, (inputs @ torch.randn(4, 3, generator=random)).argmax(dim=1))
    return Workload("small", perceptron, data, data, data)


@pytest.fixture(scope="module")
def model(workload: Workload) -> nn.Module:
    return build(workload.model, 7)


def by_hand(
    workload: Workload, start: nn.Module, rate: float, momentum: float, seed: int, num_steps: int, kind: str
) -> float:
    model = deepcopy(start)
    buffers = [torch.zeros_like(p) for p in model.parameters()]
    draws = Sampling(len(workload.train), 16, kind)
    for step in range(num_steps):
        epoch, place = divmod(step, draws.steps_per_epoch)
        batch = draws.epoch(seed, epoch)[16 * place : 16 * (place + 1)]
        loss = workload.loss(model(workload.train.inputs[batch]), workload.train.targets[batch]).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, m, g in zip(model.parameters(), buffers, gradients, strict=True):
                m.mul_(momentum).add_((1 - momentum) * g)
                p.sub_(rate * m)
    return workload.loss(model(workload.train.inputs), workload.train.targets).mean().item()


@pytest.mark.parametrize("kind", ["iid", "shuffle"])
def test_differences_are_those_of_a_plain_loop_on_the_same_batches(
    workload: Workload, model: nn.Module, kind: str
) -> None:
    found = measured_value(
        workload,
        model,
        [0.05, 0.5],
        batch_size=16,
        num_steps=[4, 9],
        sampling=kind,
        precision=0.0,
        fewest_pairs=2,
        most_pairs=4,
    )
    assert set(found) == {(0.05, 4), (0.05, 9), (0.5, 4), (0.5, 9)}
    for (rate, steps), value in found.items():
        runs = np.array(
            [[by_hand(workload, model, rate, m, seed, steps, kind) for m in (0.0, 0.9)] for seed in range(4)]
        )
        differences = runs[:, 0] - runs[:, 1]
        assert value.mean == pytest.approx(differences.mean(), abs=2e-6)
        assert value.standard_error == pytest.approx(differences.std(ddof=1) / 2, abs=2e-6)
        assert (value.sgd, value.sgdm) == pytest.approx(tuple(runs.mean(axis=0)), abs=2e-6)
        assert (value.pairs, value.failed_sgd, value.failed_sgdm) == (4, 0, 0)


def test_pairs_are_added_until_the_effect_is_precise(workload: Workload, model: nn.Module) -> None:
    found = measured_value(
        workload, model, [0.05, 2.0], batch_size=4, num_steps=30, precision=0.2, fewest_pairs=4, most_pairs=12
    )
    clear, noisy = found[0.05, 30], found[2.0, 30]
    assert clear.standard_error <= 0.2 * abs(clear.mean)
    assert clear.pairs == 4
    assert noisy.pairs == 12
    assert clear.mean < 0  # from m₀ = 0 momentum lags behind


def test_the_model_and_the_generators_stay_as_they_are(workload: Workload, model: nn.Module) -> None:
    before = {name: p.clone() for name, p in model.state_dict().items()}
    state = torch.get_rng_state()
    measured_value(workload, model, [0.1], batch_size=16, num_steps=3, most_pairs=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_runs_that_diverge_are_counted_and_left_out() -> None:
    inputs = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    data = Data(inputs, torch.zeros(32, 1))
    squares = lambda outputs, targets: (outputs - targets).square().sum(dim=1)  # noqa: E731
    steep = Workload("steep", lambda: nn.Linear(2, 1), data, data, data, squares, squares)
    found = measured_value(steep, build(steep.model, 0), [1.3], batch_size=32, num_steps=400, most_pairs=64)
    value = found[1.3, 400]
    assert value.failed_sgd == value.pairs == 16  # more would not help
    assert value.failed_sgdm == 0
    assert np.isnan(value.mean)


def test_bad_input_is_refused(workload: Workload, model: nn.Module) -> None:
    with pytest.raises(InputError, match="num_steps is 0"):
        measured_value(workload, model, [0.1], batch_size=16, num_steps=0)
    with pytest.raises(InputError, match="fewest_pairs is 8 and most_pairs 4"):
        measured_value(workload, model, [0.1], batch_size=16, num_steps=1, fewest_pairs=8, most_pairs=4)
    with pytest.raises(InputError, match="batch size 97 does not fit"):
        measured_value(workload, model, [0.1], batch_size=97, num_steps=1)
