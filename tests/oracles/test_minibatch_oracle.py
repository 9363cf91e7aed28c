"""The minibatch oracle: weights by seed, losses over all examples, and no traces left."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.oracles import MinibatchOracle, Sampling, build
from lightball.oracles.minibatch import _EVALUATION_EXAMPLES
from lightball.workloads import accuracy, cross_entropy


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def oracle_of(num_examples: int = 50) -> MinibatchOracle:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num_examples, 5, generator=generator)
    targets = torch.randint(3, (num_examples,), generator=generator)
    return MinibatchOracle(model, cross_entropy, inputs, targets, Sampling(num_examples, 10))


def test_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    first = oracle_of().init([4, 2, 4])
    torch.manual_seed(2)
    again = oracle_of().init([2, 4])
    for name, p in first.items():
        assert torch.equal(p[0], p[2])
        assert torch.equal(p[0], again[name][1])
        assert torch.equal(p[1], again[name][0])
        assert not torch.equal(p[0], p[1])
        assert p.is_contiguous()


def test_building_and_measuring_change_nothing() -> None:
    oracle = oracle_of()
    for p in oracle.model.parameters():
        p.grad = torch.ones_like(p)
    oracle.model[0].eval()
    state, rng = copy.deepcopy(oracle.model.state_dict()), torch.get_rng_state()
    x = oracle.init([0, 1])
    before = {name: p.clone() for name, p in x.items()}
    sample = oracle.stream([0, 1])(0)
    drawn = sample.clone()
    results = [oracle.noisy_gradient(x, sample)[0], oracle.loss(x)]
    results += [oracle.evaluate(x, oracle.inputs, oracle.targets, accuracy)]
    build(model, 3)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(p, before[name]) and not p.requires_grad for name, p in x.items())
    assert torch.equal(sample, drawn)
    assert not any(r.requires_grad for r in results)
    assert all(torch.equal(value, state[name]) for name, value in oracle.model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in oracle.model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in oracle.model.parameters())
    assert [module.training for module in oracle.model.modules()] == [True, False, True, True]


def test_generator_is_put_back_when_the_factory_fails() -> None:
    def failing() -> nn.Module:
        torch.randn(3)
        raise ValueError("no weights")

    rng = torch.get_rng_state()
    with pytest.raises(ValueError, match="no weights"):
        build(failing, 0)
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("num_examples", [50, _EVALUATION_EXAMPLES["cpu"] // 2 + 11])
@pytest.mark.parametrize("fn", [cross_entropy, accuracy])
def test_evaluation_is_the_mean_over_all_examples(num_examples: int, fn) -> None:  # type: ignore[no-untyped-def]
    """Also where the examples take several passes, the last of them a short one."""
    oracle = oracle_of(num_examples)
    values = oracle.evaluate(oracle.init([0, 1, 5]), oracle.inputs, oracle.targets, fn)
    assert values.dtype == torch.float64
    for value, seed in zip(values, (0, 1, 5), strict=True):
        with torch.no_grad():
            expected = fn(build(model, seed)(oracle.inputs), oracle.targets).double().mean()
        # per-chunk means are float32
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


def test_minibatch_gradients_of_an_epoch_average_to_the_whole() -> None:
    oracle = oracle_of()
    x = {name: p.double() for name, p in oracle.init([3]).items()}
    oracle.inputs = oracle.inputs.double()
    stream = oracle.stream([3])
    draws = [oracle.noisy_gradient(x, stream(k)) for k in range(oracle.steps_per_epoch)]
    whole = oracle.noisy_gradient(x, torch.arange(50)[None])
    torch.testing.assert_close(torch.stack([loss for loss, _ in draws]).mean(dim=0), whole[0])
    for name, gradient in whole[1].items():
        torch.testing.assert_close(torch.stack([g[name] for _, g in draws]).mean(dim=0), gradient)


def test_frozen_parameters_that_differ_are_refused() -> None:
    def factory() -> nn.Module:
        made = model()
        made[0].weight.requires_grad_(False)
        return made

    workload = oracle_of()
    oracle = MinibatchOracle(factory, cross_entropy, workload.inputs, workload.targets, Sampling(50, 10))
    with pytest.raises(InputError) as error:
        oracle.init([0, 1])
    assert str(error.value) == (
        "'0.weight' is a frozen parameter or a buffer but differs between seeds: give every model the same one (load "
        "it, or seed it inside the model factory)"
    )
