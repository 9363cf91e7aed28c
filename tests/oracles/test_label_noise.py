"""Label noise: Σ = cH where the labels are fitted, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles import LabelNoise, gradient, hessian, least_squares


def predict(x: Tensor) -> Tensor:
    return torch.stack((x[:, 0] * x[:, 1], x[:, 1] * x[:, 2] + x[:, 0] ** 3), dim=1)


COORDINATE = st.floats(-2, 2)


@settings(deadline=None, max_examples=30)
@given(st.tuples(COORDINATE, COORDINATE, COORDINATE), st.floats(0, 3), st.sampled_from([None, 1, 5]))
def test_the_covariance_on_the_manifold_is_c_times_the_hessian(
    point: tuple[float, float, float], noise_std: float, batch_size: int | None
) -> None:
    x0 = torch.tensor(point, dtype=torch.float64)
    fitted = LabelNoise(predict, predict(x0[None])[0], noise_std, x0, batch_size)
    x = fitted.start(1)
    factor = fitted.noise_factor(x)[0]
    c = noise_std**2 / (batch_size or 2)
    torch.testing.assert_close(factor @ factor.mT, c * hessian(fitted, x)[0], rtol=1e-9, atol=1e-9)
    assert float(gradient(fitted, x).abs().max()) < 1e-12


def test_the_hyperbola() -> None:
    """L = ½ (xy − 1)² from (2, ½), by hand: g = −s ε (y, x) on xy = 1."""
    x0 = torch.tensor([2.0, 0.5], dtype=torch.float64)
    oracle = LabelNoise(lambda x: x[:, :1] * x[:, 1:], torch.ones(1), 0.5, x0)
    sample = oracle.draw(3, torch.Generator().manual_seed(0))
    assert sample.shape == (3, 1)
    losses, g = oracle.noisy_gradient(oracle.start(3), sample)
    torch.testing.assert_close(g["x"], -0.5 * sample * torch.tensor([0.5, 2.0], dtype=torch.float64))
    torch.testing.assert_close(losses, 0.5 * (0.5 * sample[:, 0]) ** 2)
    assert oracle.loss(oracle.start(3)).tolist() == [0.0] * 3


def test_batches_take_the_examples_drawn() -> None:
    x0 = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    oracle = LabelNoise(predict, torch.zeros(2), 0.3, x0, batch_size=4)
    sample = oracle.draw(5, torch.Generator().manual_seed(1))
    assert sample.shape == (5, 2, 4)
    assert set(sample[:, 0].flatten().tolist()) == {0.0, 1.0}
    x = oracle.start(5)["x"].requires_grad_()
    residuals = predict(x)
    by_hand = sum(
        0.5 * (residuals[torch.arange(5), sample[:, 0, j].long()] - 0.3 * sample[:, 1, j]) ** 2 for j in range(4)
    )
    (expected,) = torch.autograd.grad(by_hand.sum() / 4, [x])
    torch.testing.assert_close(oracle.noisy_gradient({"x": x.detach()}, sample)[1]["x"], expected)


def test_least_squares_is_a_quadratic() -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]], dtype=torch.float64)
    x0 = torch.tensor([1.0, 1.0], dtype=torch.float64)
    oracle = least_squares(features, torch.tensor([3.0, 1.0, 2.0]), 1.0, x0)
    torch.testing.assert_close(hessian(oracle, oracle.start(1))[0], features.mT @ features / 3)
    assert oracle.loss(oracle.start(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_std": -1.0}, "noise_std is -1; required is a finite number ≥ 0"),
        ({"noise_std": math.nan}, "noise_std is nan; required is a finite number ≥ 0"),
        ({"batch_size": 0}, "batch_size is 0; required is a number ≥ 1, or none for all examples"),
        (
            {"targets": torch.zeros(3)},
            "predict makes shape (2, 2) of 2 replicas, and targets have shape (3,); required is (replica, example) "
            "and (example,)",
        ),
        (
            {"predict": lambda x: x[0, 5]},
            "predict failed for 2 replicas with IndexError: index 5 is out of bounds for dimension 1 with size 3; "
            "required is a function (replica, dim) → (replica, example) of torch operations",
        ),
        ({"noise": "cauchy"}, "noise is 'cauchy'; required is one of gaussian, rademacher, student-t"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    settings = {"predict": predict, "targets": torch.zeros(2), "noise_std": 1.0, "x0": torch.ones(3)}
    with pytest.raises(InputError) as error:
        LabelNoise(**{**settings, **changes})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError) as error:
        least_squares(torch.ones(4, 3), torch.ones(4), 1.0, torch.ones(2))
    assert str(error.value) == "features have shape (4, 3), but x0 has 2 coordinates; required is (example, 2)"
