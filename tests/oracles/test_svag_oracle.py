"""SVAG: mean and covariance by algebra, by seeds and sampled, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightball.dynamics import Ensemble
from lightball.errors import InputError
from lightball.oracles import MinibatchOracle, Quadratic, Sampling, Seeded, Svag
from lightball.rules import canonical
from lightball.workloads import cross_entropy

ELLS = st.floats(1, 1e4)
ORACLE = Quadratic(torch.tensor([1.0, 3.0], dtype=torch.float64), 0.5, torch.ones(2, dtype=torch.float64))


@given(ELLS)
def test_the_weights_give_mean_1_and_variance_ell(ell: float) -> None:
    plus, minus = Svag(ORACLE, ell).weights
    assert plus + minus == pytest.approx(1, abs=1e-9)
    assert plus**2 + minus**2 == pytest.approx(ell, rel=1e-9)


@settings(deadline=None)
@given(ELLS, st.integers(0, 2**31))
def test_a_gradient_is_that_combination_of_two(ell: float, seed: int) -> None:
    """On the draws themselves: over all pairs of a set of samples, mean and covariance are exactly ∇L and ℓ Σ.

    Two independent draws from n equally likely gradients are n² equally likely pairs, so that the mean over pairs is
    the expectation.
    """
    n, svag = 7, Svag(ORACLE, ell)
    samples = ORACLE.draw(n, torch.Generator().manual_seed(seed))
    pairs = torch.stack((samples.repeat_interleave(n, 0), samples.repeat(n, 1)), dim=1)
    single = ORACLE.noisy_gradient(ORACLE.start(n), samples)[1]["x"]
    combined = svag.noisy_gradient(svag.start(n * n), pairs)[1]["x"]
    scale = float(single.abs().max()) * ell
    torch.testing.assert_close(combined.mean(dim=0), single.mean(dim=0), rtol=0, atol=1e-10 * scale)
    expected = ell * torch.cov(single.mT, correction=0)
    torch.testing.assert_close(torch.cov(combined.mT, correction=0), expected, rtol=1e-8, atol=1e-10 * scale)


def test_ell_1_is_the_oracle() -> None:
    svag, x = Svag(ORACLE, 1), ORACLE.start(3)
    sample = svag.draw(3, torch.Generator().manual_seed(0))
    assert sample.shape == (3, 2, 2)
    (loss, g), (alone, one) = svag.noisy_gradient(x, sample), ORACLE.noisy_gradient(x, sample[:, 0])
    assert torch.equal(g["x"], one["x"])
    assert torch.equal(loss, alone)
    assert torch.equal(svag.loss(x), ORACLE.loss(x))


def test_by_seeds_too() -> None:
    seeded = Seeded(ORACLE, steps_per_epoch=10)
    svag = Svag(seeded, 4.0)
    inner, outer = seeded.stream([3, 5]), svag.stream([3, 5])
    assert svag.steps_per_epoch == 5
    for step in (0, 7, 4, 5):
        assert torch.equal(outer(step), torch.stack((inner(2 * step), inner(2 * step + 1)), dim=1))
    ensemble = Ensemble(svag, [3, 5, 3], canonical(0.05, 0.9))
    ensemble.advance(12)
    assert torch.equal(ensemble.x["x"][0], ensemble.x["x"][2])
    assert bool(ensemble.x["x"].isfinite().all())


def minibatches(drop_last: bool) -> MinibatchOracle:
    inputs = torch.randn(14, 3, generator=torch.Generator().manual_seed(0))
    return MinibatchOracle(
        lambda: nn.Linear(3, 2), cross_entropy, inputs, torch.zeros(14).long(), Sampling(14, 4, drop_last=drop_last)
    )


def test_a_module_by_seeds() -> None:
    oracle = minibatches(drop_last=True)
    svag = Svag(oracle, 2.0)
    x, sample = svag.init([0, 1]), svag.stream([0, 1])(0)
    assert sample.shape == (2, 2, 4)
    plus, minus = svag.weights
    one, other = (oracle.noisy_gradient(x, sample[:, i])[1] for i in range(2))
    for name, g in svag.noisy_gradient(x, sample)[1].items():
        torch.testing.assert_close(g, plus * one[name] + minus * other[name])


def test_batches_of_two_sizes_are_refused() -> None:
    stream = Svag(minibatches(drop_last=False), 2.0).stream([0])
    with pytest.raises(InputError) as error:
        stream(1)
    assert str(error.value) == (
        "SVAG combines two batches of equal size, but those of step 1 have 4 and 2 examples: use "
        "Sampling(drop_last=True)"
    )


@pytest.mark.parametrize("ell", [0.99, 0, -1, math.nan, math.inf])
def test_an_ell_below_1_is_refused(ell: float) -> None:
    with pytest.raises(InputError) as error:
        Svag(ORACLE, ell)
    assert str(error.value) == f"ell is {ell:g}; required is a finite number ≥ 1; 1 changes nothing"


@pytest.mark.parametrize("ell", ["4", None])
def test_an_ell_that_is_no_number_is_refused(ell: Any) -> None:
    with pytest.raises(InputError) as error:
        Svag(ORACLE, ell)
    assert str(error.value) == f"ell is {ell!r}; required is a finite number ≥ 1; 1 changes nothing"
