"""The observables that everyone asks for are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightball.dynamics import Arm, coordinate, coordinates, exact_moments, loss_of, simulate, square
from lightball.errors import InputError
from lightball.oracles import Quadratic

X = {"x": torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])}
ORACLE = Quadratic(torch.tensor([1.0, 0.3]), torch.tensor([[1.0, 0.6], [0.6, 0.5]]), torch.ones(2).double())


def test_each_is_what_it_says_for_each_trajectory() -> None:
    assert coordinate(1)(X, {}).tolist() == [-2.0, 4.0]
    assert coordinate(-1)(X, {}).tolist() == [3.0, -1.0]
    assert square(2)(X, {}).tolist() == [9.0, 1.0]
    assert loss_of(Quadratic(2.0, 1.0, torch.ones(3)))(X, {}).tolist() == [14.0, 17.25]
    assert {name: value(X, {}).tolist() for name, value in coordinates(3).items()} == {
        "x0": [1.0, 0.5],
        "x1": [-2.0, 4.0],
        "x2": [3.0, -1.0],
    }


def test_all_coordinates_give_mean_and_covariance_of_x() -> None:
    number, steps = 20_000, 30
    moments = simulate(ORACLE, {"sgdm": Arm(0.1, 0.5)}, steps, number, coordinates(2), [steps])
    exact = exact_moments(ORACLE, 0.1, 0.5, num_steps=steps, record_at=[steps])
    covariance = exact.covariance[-1, :2, :2].numpy()
    deviations = np.sqrt(np.diag(covariance))
    # Five standard errors of five numbers: one seed in 350,000.
    assert (np.abs(moments.mean[0, -1] - exact.mean[-1, :2].numpy()) < 5 * deviations / number**0.5).all()
    error = np.outer(deviations, deviations) * (2 / number) ** 0.5
    assert (np.abs(moments.covariance[-1] - covariance) < 5 * error).all()


def test_the_mean_of_a_square_is_the_second_moment() -> None:
    moments = simulate(ORACLE, {"sgd": Arm(0.1)}, 5, 500, {**coordinates(2), "x1²": square(1)}, [5])
    mean, variance = moments.mean[0, 0], moments.variance[0, 0]
    assert mean[2] == pytest.approx(mean[1] ** 2 + variance[1] * 499 / 500)


def test_a_coordinate_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"the observable 'x5' failed with IndexError: .*oracle's parameters \(x\)"):
        simulate(ORACLE, {"sgd": Arm(0.1)}, 5, 500, {"x5": coordinate(5)})
