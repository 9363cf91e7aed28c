"""A user's functions, SDEs, flat networks and minibatches of nameless replicas as oracles; derivatives of any."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.oracles import (
    Diffusion,
    Flattened,
    FunctionOracle,
    MinibatchOracle,
    Quadratic,
    Sampling,
    Seeded,
    gradient,
    hessian,
)
from lightball.workloads import cross_entropy

X0 = torch.tensor([1.0, -2.0], dtype=torch.float64)


def loss(x: Tensor) -> Tensor:
    return torch.cosh(x[:, 0]) * x[:, 1] ** 2


def normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_derivatives_by_hand(a: float, b: float) -> None:
    oracle = FunctionOracle(loss, normal, X0)
    x = {"x": torch.tensor([[a, b], [0.5, 1.0]], dtype=torch.float64)}
    c, s, y = torch.cosh(x["x"][:, 0]), torch.sinh(x["x"][:, 0]), x["x"][:, 1]
    torch.testing.assert_close(gradient(oracle, x), torch.stack((s * y**2, 2 * c * y), dim=1))
    rows = (torch.stack((c * y**2, 2 * s * y), dim=1), torch.stack((2 * s * y, 2 * c), dim=1))
    torch.testing.assert_close(hessian(oracle, x), torch.stack(rows, dim=1))


def test_a_loss_and_a_sampler_are_enough() -> None:
    oracle = FunctionOracle(loss, normal, X0)
    sample, x = oracle.draw(3, torch.Generator().manual_seed(0)), oracle.start(3)
    losses, g = oracle.noisy_gradient(x, sample)
    assert torch.equal(losses, oracle.loss(x))
    torch.testing.assert_close(g["x"], gradient(oracle, x) + sample)


def test_an_unknown_covariance_is_said() -> None:
    oracle = FunctionOracle(loss, normal, X0)
    for ask in (lambda: oracle.noise_factor(oracle.start(1)), lambda: Diffusion(oracle).draw(1, torch.Generator())):
        with pytest.raises(InputError) as error:
            ask()
        assert str(error.value) == (
            "this oracle has no noise covariance, which an SDE needs: give FunctionOracle factor=, a function x → S(x) "
            "of shape (replica, dim, columns) with S Sᵀ the covariance of the noise"
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": lambda x: x}, "loss gives shape (2, 2) for 2 replicas; required is (2,)"),
        ({"loss": lambda x: loss(x).sum()}, "loss gives shape () for 2 replicas; required is (2,)"),
        ({"sampler": lambda n, g: normal(n, g)[:, 0]}, "sampler gives shape (2,) for 2 replicas; required is (2, 2)"),
        ({"noise": lambda x, z: z[:, :1]}, "noise gives shape (2, 1) for 2 replicas; required is (2, 2)"),
        ({"factor": lambda x: x}, "factor gives shape (2, 2) for 2 replicas; required is (2, 2, columns)"),
        (
            {"loss": lambda x: loss(x) if x > 0 else -loss(x)},
            "loss failed for 2 replicas with RuntimeError: Boolean value of Tensor with more than one value is "
            "ambiguous; required is a function of all replicas at once, the first axis, made of torch operations",
        ),
        ({"loss": lambda x: 1.0}, "loss gives float; required is a tensor, replica axis first"),
    ],
)
def test_functions_of_other_shapes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        FunctionOracle(**{"loss": loss, "sampler": normal, "x0": X0, **changes})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_a_diffusion_has_its_noise_scaled_by_the_substeps() -> None:
    oracle = Quadratic(1.0, torch.tensor([4.0, 1.0]), X0)
    x, sample = oracle.start(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    _, g = Diffusion(oracle, 9).noisy_gradient(x, sample)
    torch.testing.assert_close(g["x"] - x["x"], torch.tensor([[6.0, 0.0], [0.0, 3.0]], dtype=torch.float64))
    with pytest.raises(InputError) as error:
        Diffusion(oracle, 0)
    assert str(error.value) == "substeps is 0; required is a whole number ≥ 1"


def test_seeded_streams_are_those_of_the_oracle() -> None:
    oracle = Quadratic(1.0, 1.0, X0, "student-t")
    seeded = Seeded(oracle, steps_per_epoch=4)
    stream = seeded.stream([7, 8, 7])
    assert torch.equal(stream(5)[0], stream(5)[2])
    assert not torch.equal(stream(5)[0], stream(5)[1])
    assert not torch.equal(stream(5), stream(1))
    assert torch.equal(seeded.stream([8])(5)[0], stream(5)[1])
    assert torch.equal(seeded.init([1, 2])["x"], oracle.start(2)["x"])
    x, sample = oracle.start(3), stream(0)
    assert torch.equal(seeded.noisy_gradient(x, sample)[1]["x"], oracle.noisy_gradient(x, sample)[1]["x"])
    assert torch.equal(seeded.loss(x), oracle.loss(x))


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def minibatches(kind: str = "iid") -> MinibatchOracle:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(2, (12,), generator=generator)
    return MinibatchOracle(module, cross_entropy, inputs, targets, Sampling(12, 4, kind))  # type: ignore[arg-type]


def test_nameless_minibatches() -> None:
    oracle = minibatches()
    x, first = oracle.start(3), oracle.init([0])
    for name, p in x.items():
        assert torch.equal(p[2], first[name][0])
        p[0] += 1
        assert torch.equal(p[1], first[name][0])
        assert torch.equal(oracle.start(1)[name], first[name])
    batches = oracle.draw(500, torch.Generator().manual_seed(0))
    assert batches.shape == (500, 4)
    assert batches.unique().tolist() == list(range(12))
    assert any(len(set(batch.tolist())) < 4 for batch in batches)  # with replacement


def test_shuffled_minibatches_have_no_nameless_draws() -> None:
    with pytest.raises(InputError) as error:
        minibatches("shuffle").draw(2, torch.Generator())
    assert str(error.value) == (
        "sampling is 'shuffle', whose batches depend on those before them; populations of nameless replicas require "
        "'iid': use Sampling(..., kind='iid')"
    )


def test_a_flat_network_is_the_network() -> None:
    oracle = minibatches()
    flat = Flattened(oracle)
    x = flat.start(3)
    x["x"] += torch.arange(3)[:, None] * 0.1
    assert x["x"].shape == (3, 4 * 3 + 4 + 2 * 4 + 2)
    named = flat.named(x)
    sample = flat.draw(3, torch.Generator().manual_seed(1))
    losses, g = flat.noisy_gradient(x, sample)
    expected_losses, expected = oracle.noisy_gradient(named, sample)
    assert torch.equal(losses, expected_losses)
    for name, part in flat.named(g).items():
        assert torch.equal(part, expected[name])
    torch.testing.assert_close(flat.loss(x), oracle.loss(named))
    every = oracle.noisy_gradient(named, torch.arange(12).expand(3, 12))[1]
    torch.testing.assert_close(flat.named({"x": gradient(flat, x)}), every)
    torch.testing.assert_close(hessian(flat, x), hessian(flat, x).mT)
