"""Exact moments of the SDE limits: closed forms, the Lyapunov equation, and SGD and SGDM at small learning rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov

from lightball.dynamics.moments import exact_moments
from lightball.dynamics.sde_moments import sde_moments, underdamped_sde_moments
from lightball.errors import InputError
from lightball.oracles import Quadratic


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def correlated() -> Quadratic:
    covariance = torch.tensor([[2.0, 0.7], [0.7, 1.0]]).double()
    return Quadratic(torch.tensor([[1.0, 0.4], [0.4, 0.6]]).double(), covariance, vector(1.0, -2.0))


def test_the_first_order_one_is_an_ornstein_uhlenbeck_process() -> None:
    got = sde_moments(Quadratic(vector(0.0, 0.5, 2.0), 3.0, vector(1.0, 2.0, 3.0)), 0.1, [0.0, 0.7, 2.0])
    t = np.array([0.0, 0.7, 2.0])
    np.testing.assert_allclose(got.mean[:, 0], 1.0)
    np.testing.assert_allclose(got.covariance[:, 0, 0], 0.3 * t, atol=1e-15)  # no curvature: Brownian motion
    for place, h, x0 in ((1, 0.5, 2.0), (2, 2.0, 3.0)):
        np.testing.assert_allclose(got.mean[:, place], x0 * np.exp(-h * t), rtol=1e-12)
        variance = 0.3 * (1 - np.exp(-2 * h * t)) / (2 * h)
        np.testing.assert_allclose(got.covariance[:, place, place], variance, rtol=1e-12, atol=1e-15)


def test_both_come_to_the_covariance_of_the_lyapunov_equation() -> None:
    problem, lr, c = correlated(), 0.05, 3.0
    h, s, eye, zero = problem.curvature.numpy(), problem.covariance.numpy(), np.eye(2), np.zeros((2, 2))
    late = sde_moments(problem, lr, [200.0]).covariance[0]
    np.testing.assert_allclose(late, solve_continuous_lyapunov(h, lr * s), rtol=1e-9)
    late = underdamped_sde_moments(problem, lr, c, [200.0]).covariance[0]
    drift = np.block([[zero, -eye], [c * h, -c * eye]])
    noise = np.block([[zero, zero], [zero, lr * c**2 * s]])
    np.testing.assert_allclose(late, solve_continuous_lyapunov(drift, -noise), rtol=1e-9, atol=1e-12)


def test_they_are_the_limits_of_sgd_and_of_sgdm_whose_memory_lasts_as_long_as_the_run() -> None:
    """Distances at time 1 halve with η; SGDM with 1 − β = cη does not come near the first-order SDE."""
    c, distances = 2.0, []
    for eta in (2.0**-8, 2.0**-9):
        problem = Quadratic(correlated().curvature, correlated().covariance / eta, correlated().x0)
        found = exact_moments(
            problem, eta, [[0.0], [1 - c * eta]], num_steps=round(1 / eta), record_at=[round(1 / eta)]
        )
        first, second = sde_moments(problem, eta, [1.0]), underdamped_sde_moments(problem, eta, c, [1.0])
        distances.append(
            [
                float((found.mean[0, 0, :2] - first.mean[0]).abs().max()),
                float((found.covariance[0, 0, :2, :2] - first.covariance[0]).abs().max()),
                float((found.mean[1, 0] - second.mean[0]).abs().max()),
                float((found.covariance[1, 0] - second.covariance[0]).abs().max()),
                float((found.mean[1, 0, :2] - first.mean[0]).abs().max()),
            ]
        )
    ratios = np.array(distances[0]) / np.array(distances[1])
    np.testing.assert_allclose(ratios[:4], 2.0, atol=0.05)
    assert ratios[4] == pytest.approx(1.0, abs=0.02)


def test_hills_are_infinitely_high_after_long_not_nan() -> None:
    hill = Quadratic(vector(-1.0, 1.0), 1.0, vector(1.0, 1.0))
    for got in (sde_moments(hill, 0.1, [1.0, 5000.0]), underdamped_sde_moments(hill, 0.1, 1.0, [1.0, 5000.0])):
        assert got.diverged.tolist() == [False, True]
        assert bool((got.mean[1] == math.inf).all())
        assert bool((got.covariance[1] == math.inf).all())
        assert bool(got.covariance[0].isfinite().all())


def test_times_need_no_order() -> None:
    forwards, backwards = (sde_moments(Quadratic(-1.0, 1.0, vector(1.0)), 0.1, t) for t in ([1.0, 5e3], [5e3, 1.0]))
    assert backwards.diverged.tolist() == [True, False]
    torch.testing.assert_close(backwards.mean, forwards.mean.flip(0))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="lr is -1; required is a finite number > 0"):
        sde_moments(correlated(), -1.0, [1.0])
    with pytest.raises(InputError, match="damping is 0; required is a finite number > 0"):
        underdamped_sde_moments(correlated(), 0.1, 0.0, [1.0])
    with pytest.raises(InputError, match=r"times are \[-1.0\]; required is a list of times t ≥ 0"):
        sde_moments(correlated(), 0.1, [-1.0])
