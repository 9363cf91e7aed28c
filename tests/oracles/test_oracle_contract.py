"""Contract of every theory oracle: E g = ∇L, Cov g = S Sᵀ, replicas apart, nothing changed, and traceable."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from lightball.dynamics import Stepper
from lightball.oracles import (
    CovarianceOracle,
    Diffusion,
    Flattened,
    FunctionOracle,
    LabelNoise,
    MinibatchOracle,
    Quadratic,
    Sampling,
    Svag,
    gradient,
    least_squares,
)
from lightball.rules import canonical, kernel


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


X0 = vector(1.0, -0.5, 0.75)
HESSIAN = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]], dtype=torch.float64)
SINGULAR = torch.outer(vector(1.0, 2.0, -1.0), vector(1.0, 2.0, -1.0))
FEATURES = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def curved(x: Tensor) -> Tensor:
    """A model with curvature of its own: every example is a product of two coordinates, and one more."""
    return torch.stack((x[:, 0] * x[:, 1], x[:, 1] * x[:, 2], x[:, 0] + x[:, 2] ** 2, x[:, 0]), dim=1)


def network() -> Flattened:
    torch.manual_seed(0)
    inputs, targets = torch.randn(20, 2).double(), torch.randn(20, 1).double()

    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 1)).double()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum(dim=1)

    return Flattened(MinibatchOracle(factory, loss, inputs, targets, Sampling(20, 4, "iid")))


def quartic() -> FunctionOracle:
    return FunctionOracle(
        loss=lambda x: 0.25 * (x**4).sum(dim=1) + x[:, 0] * x[:, 1],
        sampler=lambda n, generator: torch.randn(n, 2, generator=generator, dtype=torch.float64),
        x0=X0,
        noise=lambda x, z: torch.stack((z[:, 0] * x[:, 1], z[:, 1], z[:, 0] + z[:, 1]), dim=1),
        factor=lambda x: torch.stack(
            (
                torch.stack((x[:, 1], 0 * x[:, 1]), dim=1),
                vector(0.0, 1.0).expand(len(x), 2),
                vector(1.0, 1.0).expand(len(x), 2),
            ),
            dim=1,
        ),
    )


TARGETS = vector(1.0, 2.0, 0.5, -1.0)
ORACLES: dict[str, Callable[[], CovarianceOracle]] = {
    "diagonal": lambda: Quadratic(vector(1.0, 2.0, -0.5), vector(1.0, 0.0, 4.0), X0),
    "matrices": lambda: Quadratic(HESSIAN, HESSIAN @ HESSIAN, X0),
    "singular, rademacher": lambda: Quadratic(HESSIAN, SINGULAR, X0, "rademacher"),
    "student-t": lambda: Quadratic(1.0, HESSIAN @ HESSIAN, X0, "student-t", df=12),
    "label noise": lambda: LabelNoise(curved, TARGETS, 0.7, X0),
    "label noise, batches": lambda: LabelNoise(curved, TARGETS, 0.7, X0, batch_size=2),
    "least squares": lambda: least_squares(FEATURES, torch.ones(5), 0.5, X0, noise="rademacher"),
    "function": quartic,
    "svag": lambda: Svag(LabelNoise(curved, TARGETS, 0.7, X0, batch_size=2), 2.5),
    "diffusion": lambda: Diffusion(LabelNoise(curved, TARGETS, 0.7, X0, batch_size=2), 9),
    "diffusion of a function": lambda: Diffusion(quartic(), 4),
    "network": network,
    "svag of a network": lambda: Svag(network(), 3),
}
DRAWS = 60_000
# All means and covariances of all oracles together fail a right one at a fresh seed with probability 1e-3 at most, up
# to the error of the central limit theorem.
LEVEL = 1e-3 / len(ORACLES)


@pytest.fixture(params=ORACLES)
def oracle(request: pytest.FixtureRequest) -> CovarianceOracle:
    return ORACLES[request.param]()


def p_of_entries(values: np.ndarray, expected: np.ndarray) -> float:
    """Two-sided p of the mean of each column, the smallest times their number; a constant one must be exact."""
    error, spread = values.mean(axis=0) - expected, values.std(axis=0)
    constant = spread < 1e-12 * (1 + np.abs(expected))
    if not np.allclose(error[constant], 0, atol=1e-9):
        return 0.0
    z = error[~constant] / spread[~constant] * math.sqrt(len(values))
    return float(2 * stats.norm.sf(np.abs(z)).min() * len(expected))


def p_of_mean(gradients: np.ndarray, mean: np.ndarray) -> float:
    return p_of_entries(gradients, mean)


def p_of_covariance(gradients: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    centred = gradients - mean
    upper = np.triu_indices(len(mean))
    return p_of_entries((centred[:, :, None] * centred[:, None, :])[:, *upper], covariance[upper])


def test_mean_and_covariance(oracle: CovarianceOracle) -> None:
    one = oracle.start(1)
    mean = gradient(oracle, one)[0].numpy()
    factor = oracle.noise_factor(one)[0].numpy()
    covariance = factor @ factor.T
    sample = oracle.draw(DRAWS, torch.Generator().manual_seed(0))
    assert len(sample) == DRAWS
    gradients = oracle.noisy_gradient(oracle.start(DRAWS), sample)[1]["x"].numpy()
    assert p_of_mean(gradients, mean) > LEVEL / 2
    assert p_of_covariance(gradients, mean, covariance) > LEVEL / 2
    # Controls: a fifth of a standard deviation off, and a tenth of the covariance.
    assert p_of_mean(gradients, mean + 0.2 * np.sqrt(np.diag(covariance))) < LEVEL / 2
    assert p_of_covariance(gradients, mean, 1.1 * covariance) < LEVEL / 2


def test_replicas_are_apart_and_nothing_is_changed(oracle: CovarianceOracle) -> None:
    x = oracle.start(6)
    x["x"] += torch.randn(x["x"].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before, sample = x["x"].clone(), oracle.draw(6, torch.Generator().manual_seed(4))
    drawn = sample.clone()
    losses, gradients = oracle.noisy_gradient(x, sample)
    factor = oracle.noise_factor(x)
    assert losses.shape == oracle.loss(x).shape == (6,)
    assert gradients["x"].shape == x["x"].shape
    assert not losses.requires_grad
    assert torch.equal(x["x"], before)
    assert torch.equal(sample, drawn)
    for i in (0, 4):
        alone = {"x": before[i : i + 1]}
        at = {"rtol": 1e-10, "atol": 1e-12}
        loss, moved = oracle.noisy_gradient(alone, sample[i : i + 1])
        torch.testing.assert_close(losses[i : i + 1], loss, **at)
        torch.testing.assert_close(gradients["x"][i : i + 1], moved["x"], **at)
        torch.testing.assert_close(factor[i : i + 1], oracle.noise_factor(alone), **at)
    gradients["x"].zero_()
    assert torch.equal(x["x"], before)


def test_draws_are_a_function_of_the_generator(oracle: CovarianceOracle) -> None:
    one, same, other = (oracle.draw(4, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(row.flatten().tolist()) for row in one}) > 1
    start = oracle.start(3)
    start["x"][0] += 1
    assert torch.equal(oracle.start(3)["x"][0], start["x"][1])
    assert torch.equal(start["x"][1], start["x"][2])


def test_a_traced_step_is_the_kernel_on_the_gradient(oracle: CovarianceOracle) -> None:
    x = oracle.start(4)
    states = {"x": kernel.init(x["x"])}
    generator, stepper = torch.Generator().manual_seed(0), Stepper(oracle)
    hyper = canonical(torch.full((4,), 0.01, dtype=torch.float64), torch.full((4,), 0.5, dtype=torch.float64))
    expected, state = x["x"].clone(), kernel.init(x["x"])
    for _ in range(3):
        sample = oracle.draw(4, generator)
        g = oracle.noisy_gradient({"x": expected}, sample)[1]["x"]
        expected, state = kernel.step(expected, g, state, hyper)
        stepper(x, states, sample, hyper)
    torch.testing.assert_close(x["x"], expected, rtol=1e-10, atol=1e-12)
