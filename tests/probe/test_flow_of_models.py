"""Gradient flow by the stabilised method, against closed forms and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from lightball.probe.flow import flow

CURVATURE = torch.tensor([0.0, 0.01, 0.3, 2.0, 40.0], dtype=torch.float64)
START = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)


def linear(state: torch.Tensor) -> torch.Tensor:
    return -CURVATURE * state


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-5])
def test_a_linear_flow_is_followed_to_its_tolerance(tolerance: float) -> None:
    steps = list(flow(linear, lambda _: 40.0, START, [0.5, 3.0, 50.0], tolerance=tolerance))
    for step in steps:
        exact = torch.exp(-CURVATURE * step.time)
        assert (step.state[0] - exact).norm() <= 10 * tolerance * START.norm()
    assert {0.0, 0.5, 3.0, 50.0} <= {step.time for step in steps}
    assert [step.time for step in steps] == sorted(step.time for step in steps)


def test_the_error_is_of_second_order() -> None:
    """Ten times the accuracy of a step takes 10^(1/3) times the steps; a first-order method would take 10^(1/2)."""
    counts = [
        len(list(flow(linear, lambda _: 40.0, START, [20.0], tolerance=tolerance)))
        for tolerance in (1e-4, 1e-5, 1e-6, 1e-7)
    ]
    growth = (counts[-1] / counts[0]) ** (1 / 3)
    assert 1.9 < growth < 2.6  # 10^(1/3) = 2.15, 10^(1/2) = 3.16


def test_stiffness_costs_its_square_root() -> None:
    """Once the stiff mode has died, a stage reaches further the more of them there are; gradient descent needs tλ/2."""
    time = 50.0
    steps = list(flow(linear, lambda _: 40.0, START, [time], tolerance=1e-2))
    assert sum(step.evaluations for step in steps) < time * 40 / 2 / 3


def test_too_low_a_stiffness_is_found_out_by_the_error() -> None:
    """A guess that grows when asked again, as power iteration's does."""
    guesses = iter([0.5, 5.0, 50.0] + [50.0] * 1000)
    steps = list(flow(linear, lambda _: next(guesses), START, [20.0], tolerance=1e-3))
    assert (steps[-1].state[0] - torch.exp(-CURVATURE * 20)).norm() < 1e-2


def test_a_nonlinear_flow_agrees_with_scipy() -> None:
    """The gradient flow of Rosenbrock's valley, which is stiff."""

    def field(state: torch.Tensor) -> torch.Tensor:
        x, y = state[0]
        return torch.stack([2 * (1 - x) + 400 * x * (y - x**2), -200 * (y - x**2)])[None]

    def stiffness(position: torch.Tensor) -> float:
        x, y = position
        return float(torch.linalg.eigvalsh(torch.tensor([[2 - 400 * (y - 3 * x**2), -400 * x], [-400 * x, 200.0]]))[-1])

    start = torch.tensor([[-1.0, 1.5]], dtype=torch.float64)
    last = list(flow(field, stiffness, start, [5.0], tolerance=1e-6))[-1]
    exact = solve_ivp(
        lambda t, z: field(torch.from_numpy(z)[None])[0].numpy(), (0, 5), start[0].numpy(), method="LSODA", rtol=1e-10
    )
    np.testing.assert_allclose(last.state[0].numpy(), exact.y[:, -1], atol=1e-3)


def test_a_flow_that_leaves_the_numbers_ends_with_an_error() -> None:
    with pytest.raises(FloatingPointError, match="could not be followed beyond the time"):
        list(flow(lambda z: z**2 * 1e3, lambda _: 1.0, START, [10.0], tolerance=1e-3))
