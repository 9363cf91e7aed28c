"""The moments that a forecast pushes through a measure, against the exact ones and against real sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightball.dynamics import exact_moments
from lightball.forecast.transfer import Linear, NoiseSpread, Shuffled, mean_positions
from lightball.oracles import Quadratic
from lightball.rules import canonical, kernel

CURVATURE = np.array([-0.3, 0.0, 0.02, 0.7, 3.0])


def arrays(*values: float) -> tuple[np.ndarray, ...]:
    return tuple(np.array([value]) for value in values)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_positions_and_variances_are_the_exact_moments(momentum: float) -> None:
    """A quadratic ½hx² + x: its start, from where the gradient is 1, is its minimum less 1/h."""
    rate, steps = 0.4, 60
    curved = CURVATURE[CURVATURE != 0]
    problem = Quadratic(torch.from_numpy(curved), 1.0, torch.from_numpy(1 / curved))
    exact = exact_moments(problem, rate, momentum, num_steps=steps)
    linear = Linear(curved, *arrays(rate, momentum))
    positions, _ = mean_positions(linear, tuple(range(steps + 1)))
    expected = exact.mean[:, : len(curved)].numpy() - 1 / curved
    np.testing.assert_allclose(positions[:, 0], expected, rtol=1e-10, atol=1e-10)

    spread = NoiseSpread(linear)
    for step in range(1, steps + 1):
        spread.advance(np.ones(1))
        variance = np.diagonal(exact.covariance[step].numpy())[: len(curved)]
        np.testing.assert_allclose(spread.variance[0], variance, rtol=1e-10)


def test_a_buffer_pushes_on_as_the_rule_says() -> None:
    rate, momentum, steps = 0.3, 0.9, 25
    _, positions = mean_positions(Linear(CURVATURE, *arrays(rate, momentum)), tuple(range(steps + 1)))
    x, state = torch.zeros(5, dtype=torch.float64), {"momentum_buffer": torch.ones(5, dtype=torch.float64)}
    for step in range(1, steps + 1):
        x, state = kernel.step(x, torch.from_numpy(CURVATURE) * x, state, canonical(rate, momentum))
        np.testing.assert_allclose(positions[step, 0], x.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("momentum", "batch_size"), [(0.0, 4), (0.9, 4), (0.9, 5)])
def test_batches_without_replacement_have_less_noise_as_real_sampling_has(momentum: float, batch_size: int) -> None:
    """30,000 walks through 24 examples: 5 % of a variance is 6 standard errors. Independent batches must miss it."""
    examples, walks, steps, rate = 24, 30_000, 15, 0.3
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(examples, generator=generator, dtype=torch.float64)
    noise -= noise.mean()
    epoch_steps = examples // batch_size
    epochs = -(-steps // epoch_steps)
    orders = torch.rand(walks, epochs, examples, generator=generator).argsort(dim=-1)
    batches = orders[..., : epoch_steps * batch_size].reshape(walks, epochs * epoch_steps, batch_size)
    means = noise[batches].mean(dim=-1)
    curvature = torch.from_numpy(CURVATURE)
    x = torch.zeros(walks, 5, dtype=torch.float64)
    state = kernel.init(x)
    linear = Linear(CURVATURE, *arrays(rate, momentum))
    shuffled = NoiseSpread(linear, Shuffled(examples, np.array([batch_size])))
    independent = NoiseSpread(linear)
    variance = np.array([float((noise**2).mean()) / batch_size])
    for step in range(steps):
        x, state = kernel.step(x, curvature * x + means[:, step, None], state, canonical(rate, momentum))
        shuffled.advance(variance)
        independent.advance(variance)
    measured = x.var(dim=0).numpy()
    np.testing.assert_allclose(shuffled.variance[0], measured, rtol=0.05)
    assert (independent.variance[0] > 1.2 * measured).all()


def test_a_whole_pass_at_zero_curvature_leaves_nothing() -> None:
    """Without curvature or momentum a pass adds up to the same gradient, whatever its order."""
    spread = NoiseSpread(Linear(np.zeros(1), *arrays(0.1, 0.0)), Shuffled(12, np.array([3])))
    seen = []
    for _ in range(8):
        spread.advance(np.ones(1))
        seen.append(float(spread.variance[0, 0]))
    assert seen[3] == pytest.approx(0.0, abs=1e-15)
    assert seen[7] == pytest.approx(0.0, abs=1e-15)
    assert min(seen[:3] + seen[4:7]) > 1e-3


def test_batches_of_the_whole_set_have_no_noise() -> None:
    spread = NoiseSpread(Linear(CURVATURE, *arrays(0.1, 0.9)), Shuffled(12, np.array([12])))
    for _ in range(5):
        spread.advance(np.ones(1))
        np.testing.assert_allclose(spread.variance, 0.0, atol=1e-15)
