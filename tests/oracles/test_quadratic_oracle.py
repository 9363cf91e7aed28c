"""The quadratic: laws of its noise and of its coordinates, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles import Noise, Quadratic, gradient, hessian

SEEDS = st.integers(0, 2**31)
SCALES = st.floats(0.01, 100)
SHAPES = st.sampled_from(["gaussian", "rademacher", "student-t"])
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def symmetric(seed: int, dim: int, rank: int) -> Tensor:
    """A positive semi-definite matrix of the given rank."""
    half = torch.randn(dim, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return half @ half.mT


def point(seed: int, dim: int) -> Tensor:
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(oracle: Quadratic, seed: int, n: int = 5) -> Tensor:
    return oracle.draw(n, torch.Generator().manual_seed(seed))


def noise_of(oracle: Quadratic, sample: Tensor) -> Tensor:
    x = oracle.start(len(sample))
    return oracle.noisy_gradient(x, sample)[1]["x"] - gradient(oracle, x)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 4), st.integers(1, 4), SCALES, SHAPES)
def test_noise_is_linear_in_its_scale(seed: int, dim: int, rank: int, scale: float, shape: Noise) -> None:
    covariance, x0 = symmetric(seed, dim, rank), point(seed + 1, dim)
    one = Quadratic(symmetric(seed + 2, dim, dim), covariance, x0, shape)
    many = Quadratic(symmetric(seed + 2, dim, dim), scale**2 * covariance, x0, shape)
    sample = draw(one, seed)
    assert torch.equal(sample, draw(many, seed))
    torch.testing.assert_close(noise_of(many, sample), scale * noise_of(one, sample), rtol=1e-6, atol=1e-6 * scale)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 4), SCALES, SHAPES)
def test_scale_equivariance(seed: int, dim: int, scale: float, shape: Noise) -> None:
    """In units s times as large, x/s with s²H and s²Σ: the loss is the same and gradients s times as large."""
    curvature, covariance, x0 = symmetric(seed, dim, dim), symmetric(seed + 1, dim, dim), point(seed + 2, dim)
    one = Quadratic(curvature, covariance, x0, shape)
    other = Quadratic(scale**2 * curvature, scale**2 * covariance, x0 / scale, shape)
    sample = draw(one, seed)
    (loss, g), (same, scaled) = (o.noisy_gradient(o.start(5), sample) for o in (one, other))
    torch.testing.assert_close(same, loss, **EXACT)
    torch.testing.assert_close(scaled["x"] / scale, g["x"], rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 4))
def test_a_diagonal_is_a_matrix(seed: int, dim: int) -> None:
    spectrum, variances, x0 = point(seed, dim), point(seed + 1, dim) ** 2, point(seed + 2, dim)
    short, full = Quadratic(spectrum, variances, x0), Quadratic(spectrum.diag(), variances.diag(), x0)
    x, sample = {"x": short.start(5)["x"] + 1}, draw(short, seed)
    (loss, g), (same_loss, same) = (o.noisy_gradient(x, sample) for o in (short, full))
    torch.testing.assert_close(same_loss, loss, **EXACT)
    torch.testing.assert_close(same["x"], g["x"], **EXACT)
    torch.testing.assert_close(short.noise_factor(x), full.noise_factor(x), **EXACT)
    torch.testing.assert_close(hessian(short, x), spectrum.diag().expand(5, dim, dim), **EXACT)
    torch.testing.assert_close(full.loss(x), short.loss(x), **EXACT)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(2, 5), st.data())
def test_a_singular_covariance_is_fine(seed: int, dim: int, data: st.DataObject) -> None:
    covariance = symmetric(seed, dim, data.draw(st.integers(1, dim - 1)))
    oracle = Quadratic(1.0, covariance, point(seed, dim))
    factor = oracle.noise_factor(oracle.start(1))[0]
    torch.testing.assert_close(factor @ factor.mT, covariance, rtol=1e-9, atol=1e-9 * float(covariance.abs().max()))


def test_no_noise_is_fine_and_numbers_are_diagonals() -> None:
    oracle = Quadratic(2.0, 0.0, torch.tensor([1.0, 3.0]))
    x = oracle.start(4)
    loss, g = oracle.noisy_gradient(x, draw(oracle, 0, 4))
    assert torch.equal(g["x"], 2 * x["x"])
    assert loss.tolist() == [10.0] * 4
    assert oracle.curvature.tolist() == [2.0, 2.0]
    assert oracle.covariance.tolist() == [0.0, 0.0]
    assert g["x"].dtype == oracle.draw(1, torch.Generator()).dtype == torch.float32


@pytest.mark.parametrize(
    ("curvature", "covariance", "message"),
    [
        (1.0, -1.0, "covariance has the eigenvalue -1; required are eigenvalues ≥ 0 (0 is fine: no noise there)"),
        (
            1.0,
            torch.tensor([[1.0, 2.0], [2.0, 1.0]]),
            "covariance has the eigenvalue -1; required are eigenvalues ≥ 0 (0 is fine: no noise there)",
        ),
        (
            1.0,
            torch.tensor([1.0, -0.25]),
            "covariance has the eigenvalue -0.25; required are eigenvalues ≥ 0 (0 is fine: no noise there)",
        ),
        (
            torch.tensor([[1.0, 2.0], [1.0, 1.0]]),
            1.0,
            "curvature is not symmetric: two entries across the diagonal differ by 1; required is a symmetric matrix, "
            "say (a + a.T) / 2",
        ),
        (
            1.0,
            torch.tensor([[1.0, 0.5], [0.0, 1.0]]),
            "covariance is not symmetric: two entries across the diagonal differ by 0.5; required is a symmetric "
            "matrix, say (a + a.T) / 2",
        ),
        (
            torch.ones(3),
            1.0,
            "curvature has shape (3,), but x0 has 2 coordinates; required is a number, shape (2,) for a diagonal or "
            "(2, 2)",
        ),
        (float("nan"), 1.0, "curvature has an entry that is not finite; required are finite numbers"),
        (1.0, float("inf"), "covariance has an entry that is not finite; required are finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(curvature: float | Tensor, covariance: float | Tensor, message: str) -> None:
    with pytest.raises(InputError) as error:
        Quadratic(curvature, covariance, torch.ones(2))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("x0", "message"),
    [
        (
            torch.ones(2, 2),
            "x0 has shape (2, 2) and type float32; required is one vector of floating-point numbers, shape (dim,)",
        ),
        (
            torch.ones(2, dtype=torch.int64),
            "x0 has shape (2,) and type int64; required is one vector of floating-point numbers, shape (dim,)",
        ),
        (torch.tensor([1.0, float("nan")]), "x0 is [1.0, nan]; required are finite numbers"),
    ],
)
def test_a_start_that_is_no_vector_is_refused(x0: Tensor, message: str) -> None:
    with pytest.raises(InputError) as error:
        Quadratic(1.0, 1.0, x0)
    assert str(error.value) == message
