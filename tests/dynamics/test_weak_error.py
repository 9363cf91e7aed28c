"""Weak errors over a grid of learning rates: exact, simulated, and of one another's opinion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightball.dynamics.population import Arm, Moments, simulate
from lightball.dynamics.weak_error import (
    error_of,
    exact_errors,
    first_coordinate,
    first_coordinate_squared,
    records,
    simulated_errors,
    steps_to,
)
from lightball.errors import InputError
from lightball.oracles import Quadratic

ETAS = (2.0**-4, 2.0**-5, 2.0**-6)
EXACT = {"x": first_coordinate, "x²": first_coordinate_squared}


def x_of(x: dict[str, Tensor], m: dict[str, Tensor]) -> Tensor:
    return x["x"][:, 0]


def square_of(x: dict[str, Tensor], m: dict[str, Tensor]) -> Tensor:
    return x["x"][:, 0] ** 2


def problem(eta: float) -> Quadratic:
    return Quadratic(1.0, 1 / eta, torch.ones(1, dtype=torch.float64))


def arms(eta: float, num_steps: int) -> dict[str, Arm]:
    ramp = np.linspace(0.5, 1.0, num_steps)
    return {"sgd": Arm(eta), "constant": Arm(eta, 0.9), "changing": Arm(eta * ramp, 0.8 * ramp)}


def test_exact_errors_are_those_of_a_plain_loop() -> None:
    found = exact_errors(problem, arms, "sgd", ETAS, 2.0, EXACT)
    assert set(found) == {(arm, name) for arm in ("constant", "changing") for name in EXACT}
    for arm in ("constant", "changing"):
        for place, eta in enumerate(ETAS):
            steps = round(2 / eta)
            lrs, betas = (np.broadcast_to(np.asarray(v), steps) for v in vars(arms(eta, steps)[arm]).values())
            x, m, z, worst = 1.0, 0.0, 1.0, 0.0
            for lr, beta in zip(lrs, betas, strict=True):
                m = beta * m + (1 - beta) * x
                x, z = x - lr * m, z - eta * z
                worst = max(worst, abs(x - z))
            assert found[arm, "x"].errors[place] == pytest.approx(worst, rel=1e-12)
    assert found["constant", "x"].standard_errors == (0.0, 0.0, 0.0)
    assert found["constant", "x"].etas == ETAS


def test_the_simulation_agrees_with_exact_errors_and_not_with_those_of_another_momentum() -> None:
    """12 errors within 3 standard errors that are conservative: false alarms below 12 × 0.3 %."""
    exact = exact_errors(problem, arms, "sgd", ETAS, 2.0, EXACT)
    simulated = simulated_errors(problem, arms, "sgd", ETAS, 2.0, {"x": x_of, "x²": square_of}, 4000, seed=1)
    assert set(simulated) == set(exact)
    for key, errors in simulated.items():
        for e, se, truth in zip(errors.errors, errors.standard_errors, exact[key].errors, strict=True):
            assert abs(e - truth) < 3 * se
    other = exact_errors(lambda eta: problem(eta), lambda eta, n: {"sgd": Arm(eta), "constant": Arm(eta, 0.8)},
                         "sgd", ETAS, 2.0, EXACT)  # fmt: skip
    found = simulated["constant", "x"]
    assert all(
        abs(e - wrong) > 3 * se
        for e, se, wrong in zip(found.errors, found.standard_errors, other["constant", "x"].errors, strict=True)
    )


def test_rates_do_not_share_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits take errors at different rates as independent."""
    seeds: list[int] = []

    def noticed(*arguments: Any, **named: Any) -> Moments:
        seeds.append(named["seed"])
        return simulate(*arguments, **named)

    monkeypatch.setattr("lightball.dynamics.weak_error.simulate", noticed)
    for seed in (0, 1):
        # Of the two largest, each makes 6 steps.
        simulated_errors(problem, arms, "sgd", (0.31, 0.3, 0.1), 2.0, {"x": x_of}, 40, seed=seed)
    assert len(set(seeds)) == 6


def test_progress_is_told_in_steps_of_trajectories() -> None:
    told: list[float] = []

    class Told:
        def begin(self, phase: str, work: float) -> None:
            told.append(work)

        def advance(self, work: float) -> None:
            told.append(-work)

    simulated_errors(problem, arms, "sgd", ETAS[:2], 2.0, {"x": x_of}, 40, observer=Told())
    assert told[0] == 40 * (32 + 64)
    assert sum(told) == 0


def test_what_diverges_has_an_infinite_error() -> None:
    wild = {"sgd": Arm(0.5), "wild": Arm(50.0)}
    exact = exact_errors(problem, lambda eta, n: wild, "sgd", (2.0**-9, 2.0**-4), 2.0, EXACT)
    assert exact["wild", "x"].errors[0] == math.inf
    assert exact["wild", "x"].order().fit is None
    both = exact_errors(problem, lambda eta, n: {"a": Arm(50.0), "b": Arm(60.0)}, "a", (2.0**-9,), 2.0, EXACT)
    assert both["b", "x"].errors == (math.inf,)
    simulated = simulated_errors(problem, lambda eta, n: wild, "sgd", (2.0**-9,), 2.0, {"x": x_of}, 30)
    assert simulated["wild", "x"].errors == simulated["wild", "x"].standard_errors == (math.inf,)


def test_one_diverged_trajectory_counts() -> None:
    """What is left out of the moments must not be taken for an expectation."""
    shape = (30, 2, 3, 1)
    moments = Moments(
        np.arange(3), ("a", "b"), ("x",), 30, np.zeros(shape[1:]), np.zeros((3, 2, 2)), np.zeros(shape),
        np.ones(30, dtype=int), np.array([[0, 0, 1], [0, 0, 0]]),
    )  # fmt: skip
    assert error_of(moments, "a", "b", "x") == (math.inf, math.inf)


def test_steps_and_records() -> None:
    assert steps_to(2.0, 2.0**-12) == 8192
    assert steps_to(0.3, 0.1) == 3  # 0.3 / 0.1 is 2.999…
    for num_steps in (1, 7, 100, 8192):
        at = records(num_steps)
        assert (at[0], at[-1]) == (0, num_steps)
        assert len(at) == len(set(at)) <= 101
    with pytest.raises(InputError, match="the learning rate is 3 and the time 2; required is 0 < η ≤ T"):
        steps_to(2.0, 3.0)
    with pytest.raises(InputError, match="there is no arm 'adam'; there are sgd, constant, changing"):
        exact_errors(problem, arms, "adam", ETAS, 2.0, EXACT)
