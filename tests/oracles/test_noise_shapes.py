"""Shapes of noise: the laws they claim, of variance 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from lightball.errors import InputError
from lightball.oracles import Noise, Quadratic, draw_noise


def drawn(kind: Noise, df: float = 5.0, seed: int = 0, shape: tuple[int, ...] = (50_000,)) -> np.ndarray:
    return draw_noise(kind, shape, torch.Generator().manual_seed(seed), df=df).numpy()


def scaled_t(df: float) -> Callable[[np.ndarray], np.ndarray]:
    return stats.t(df, scale=math.sqrt((df - 2) / df)).cdf


# Each right sampler fails at a fresh seed with probability 1e-4.
def test_gaussian() -> None:
    assert stats.kstest(drawn("gaussian"), stats.norm.cdf).pvalue > 1e-4


@pytest.mark.parametrize("df", [2.5, 3.0, 5.0, 30.0])
def test_student_t_is_that_of_variance_1(df: float) -> None:
    values = drawn("student-t", df)
    assert stats.kstest(values, scaled_t(df)).pvalue > 1e-4
    assert stats.t(df, scale=math.sqrt((df - 2) / df)).var() == pytest.approx(1)
    # Controls: other degrees of freedom at the same variance, and the same at a scale 5 % larger.
    assert stats.kstest(values, scaled_t(df * 1.5 if df < 30 else 10)).pvalue < 1e-4
    assert stats.kstest(1.05 * values, scaled_t(df)).pvalue < 1e-4


def test_student_t_has_its_tail() -> None:
    """Of 1e6 draws as many lie beyond the 1e-4 quantile as should: Poisson with mean 100 a side."""
    values, far = drawn("student-t", 3.0, shape=(1_000_000,)), math.sqrt(1 / 3) * stats.t(3).isf(1e-4)
    for count in (int((values > far).sum()), int((values < -far).sum())):
        assert 2 * min(stats.poisson(100).cdf(count), stats.poisson(100).sf(count - 1)) > 1e-4


def test_rademacher() -> None:
    values = drawn("rademacher")
    assert set(values) == {-1.0, 1.0}
    assert stats.binomtest(int((values > 0).sum()), len(values)).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "student-t"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_are_independent(kind: Noise, dtype: torch.dtype) -> None:
    """Correlations of neighbours, in rows, columns and squares; 4 tests of z, at 1e-4 together."""
    values = draw_noise(kind, (300, 400), torch.Generator().manual_seed(2), dtype, df=9.0)
    assert values.dtype == dtype
    pairs = [(values[1:], values[:-1]), (values[:, 1:], values[:, :-1])]
    if kind != "rademacher":
        squares = values**2 - 1
        pairs += [(squares[1:], squares[:-1]), (squares[:, 1:], squares[:, :-1])]
    for a, b in pairs:
        product = (a * b).double().flatten()
        assert abs(float(product.mean() / product.std())) * math.sqrt(len(product)) < stats.norm.isf(1e-4 / 8)


@pytest.mark.parametrize("df", [2.0, 1.0, -3.0, math.nan, math.inf])
def test_a_student_t_without_variance_is_refused(df: float) -> None:
    for make in (lambda: drawn("student-t", df), lambda: Quadratic(1.0, 1.0, torch.ones(1), "student-t", df)):
        with pytest.raises(InputError) as error:
            make()
        assert str(error.value) == (
            f"df is {df:g}; required is a finite df > 2, since Student t noise has no variance below: take df=5"
        )


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(InputError) as error:
        drawn("cauchy")  # type: ignore[arg-type]
    assert str(error.value) == "noise is 'cauchy'; required is one of gaussian, rademacher, student-t"
