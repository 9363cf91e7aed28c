"""The 2×2 transition against the simulated kernel and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from lightball.rules import kernel
from lightball.rules.kernel import Hyperparameters, canonical
from lightball.rules.transitions import transition

SETTINGS = [
    canonical(0.3, 0.9, 0.01),
    Hyperparameters(0.05, 0.9, weight_decay=0.1),
    Hyperparameters(0.05, 0.9, dampening=0.5),
    Hyperparameters(0.05, 0.9, nesterov=True),
]


def radius(hyper: Hyperparameters, curvature: float) -> float:
    return float(torch.linalg.eigvals(transition(hyper, curvature).matrix).abs().max())


@pytest.mark.parametrize("hyper", SETTINGS)
def test_agrees_with_the_kernel(hyper: Hyperparameters) -> None:
    curvature = torch.tensor([0.0, 0.5, 3.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    x = torch.ones(3, dtype=torch.float64)
    state = kernel.init(x)
    linear = transition(hyper, curvature)
    z = torch.stack((x, state["momentum_buffer"]), dim=-1)
    for v in noise:
        x, state = kernel.step(x, curvature * x + v, state, hyper)
        z = (linear.matrix @ z[..., None])[..., 0] + linear.noise * v[:, None]
        torch.testing.assert_close(z, torch.stack((x, state["momentum_buffer"]), dim=-1))


def test_momentum_zero_replaces_the_buffer() -> None:
    linear = transition(Hyperparameters(0.1), 2.0)
    assert torch.equal(linear.matrix, torch.tensor([[0.8, 0.0], [2.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(linear.noise, torch.tensor([-0.1, 1.0], dtype=torch.float64))


def test_weight_decay_is_curvature() -> None:
    with_decay = transition(canonical(0.1, 0.9, weight_decay=0.5), 2.0)
    assert torch.equal(with_decay.matrix, transition(canonical(0.1, 0.9), 2.5).matrix)


@pytest.mark.parametrize("shape", [(), (2,), (2, 5), (1, 5)])
def test_broadcasts_over_leading_axes(shape: tuple[int, ...]) -> None:
    lr, momentum = torch.tensor([0.1, 0.2]), torch.tensor([0.0, 0.9])
    curvature = 1.0 + torch.arange(int(np.prod(shape)), dtype=torch.float64).reshape(shape)
    got = transition(canonical(lr, momentum), curvature)
    expected_shape = (2, *shape[1:])
    assert got.matrix.shape == (*expected_shape, 2, 2)
    assert got.noise.shape == (*expected_shape, 2)
    lr, momentum = lr.double(), momentum.double()
    filled = curvature.expand(expected_shape).reshape(2, -1)
    for r in range(2):
        for d in range(filled.shape[1]):
            alone = transition(canonical(lr[r], momentum[r]), filled[r, d])
            torch.testing.assert_close(got.matrix.reshape(2, -1, 2, 2)[r, d], alone.matrix)
            torch.testing.assert_close(got.noise.reshape(2, -1, 2)[r, d], alone.noise)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_steps", [1, 7, 60])
def test_displacement_variance(momentum: float, num_steps: int) -> None:
    lr = 0.3
    linear = transition(canonical(lr, momentum), 0.0)
    covariance = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(num_steps):
        covariance = linear.matrix @ covariance @ linear.matrix.T + torch.outer(linear.noise, linear.noise)
    b, k = momentum, num_steps
    expected = lr**2 * (k - 2 * b * (1 - b**k) / (1 - b) + b**2 * (1 - b ** (2 * k)) / (1 - b**2))
    assert float(covariance[0, 0]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("curvature", [0.1, 1.0, 5.0])
def test_stationary_variance(momentum: float, curvature: float) -> None:
    lr = 0.3
    linear = transition(canonical(lr, momentum), curvature)
    noise = linear.noise.numpy()
    covariance = solve_discrete_lyapunov(linear.matrix.numpy(), np.outer(noise, noise))
    expected = lr / (curvature * (2 - lr * curvature * (1 - momentum) / (1 + momentum)))
    assert covariance[0, 0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
def test_stability_limit(momentum: float) -> None:
    curvature = 4.0
    limit = 2 * (1 + momentum) / (1 - momentum) / curvature
    assert radius(canonical(limit * 0.999, momentum), curvature) < 1
    assert radius(canonical(limit, momentum), curvature) == pytest.approx(1, abs=1e-9)
    assert radius(canonical(limit * 1.001, momentum), curvature) > 1
