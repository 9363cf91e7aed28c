"""Exact moments on quadratics: against a literal loop, laws, closed forms, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightball.dynamics.modes import modes_of
from lightball.dynamics.moments import exact_moments, is_stable, spectral_radius, stationary_covariance
from lightball.errors import InputError
from lightball.oracles import Quadratic
from lightball.rules import canonical, kernel

rates = st.floats(0.01, 0.5)
momenta = st.floats(0.0, 0.95)
curvatures = st.floats(0.05, 2.0)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def literal(h: float, s: float, x0: float, lrs: np.ndarray, betas: np.ndarray) -> list[tuple[float, ...]]:
    """(E x, E m, Var x, Cov(x, m), Var m) by the formulas written out for one coordinate, with no matrix anywhere."""
    x, m, xx, xm, mm = x0, 0.0, 0.0, 0.0, 0.0
    path = [(x, m, xx, xm, mm)]
    for lr, beta in zip(lrs, betas, strict=True):
        a = (1 - beta) * h
        m_new = beta * m + a * x
        mm_new = beta**2 * mm + 2 * beta * a * xm + a**2 * xx + (1 - beta) ** 2 * s
        xm_new = beta * xm + a * xx
        x, m = x - lr * m_new, m_new
        xx, xm, mm = xx - 2 * lr * xm_new + lr**2 * mm_new, xm_new - lr * mm_new, mm_new
        path.append((x, m, xx, xm, mm))
    return path


def test_a_literal_loop_in_one_dimension_under_changing_schedules() -> None:
    rng = np.random.default_rng(0)
    lrs, betas = rng.uniform(0.01, 0.3, 60), rng.uniform(0.0, 0.95, 60)
    got = exact_moments(Quadratic(0.7, 1.3, vector(2.0)), lrs, betas, num_steps=60)
    expected = np.array(literal(0.7, 1.3, 2.0, lrs, betas))
    np.testing.assert_allclose(got.mean, expected[:, :2], rtol=1e-12)
    np.testing.assert_allclose(got.covariance[:, 0, 0], expected[:, 2], rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(got.covariance[:, 0, 1], expected[:, 3], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(got.covariance[:, 1, 0], got.covariance[:, 0, 1])
    np.testing.assert_allclose(got.covariance[:, 1, 1], expected[:, 4], rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(got.loss, 0.35 * (expected[:, 0] ** 2 + expected[:, 2]), rtol=1e-11)


def rotated(seed: int = 3) -> Quadratic:
    """Three dimensions, a Hessian that is not diagonal, noise that is not diagonal in its basis, and singular."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    factor = rng.normal(size=(3, 2))
    hessian = q @ np.diag([0.3, 1.0, 2.5]) @ q.T
    return Quadratic(torch.tensor((hessian + hessian.T) / 2), torch.tensor(factor @ factor.T), vector(1.0, -0.5, 2.0))


def in_full(problem: Quadratic, lr: float, beta: float, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of (x, m) with block matrices of twice the dimension."""
    h, s, d = problem.curvature.numpy(), problem.covariance.numpy(), len(problem.x0)
    eye = np.eye(d)
    a = np.block([[eye - lr * (1 - beta) * h, -lr * beta * eye], [(1 - beta) * h, beta * eye]])
    b = np.vstack([-lr * (1 - beta) * eye, (1 - beta) * eye])
    mean, covariance = np.concatenate([problem.x0.numpy(), np.zeros(d)]), np.zeros((2 * d, 2 * d))
    for _ in range(num_steps):
        mean, covariance = a @ mean, a @ covariance @ a.T + b @ s @ b.T
    return mean, covariance


def test_full_covariances_off_the_basis_of_the_hessian() -> None:
    problem = rotated()
    got = exact_moments(problem, 0.2, 0.8, num_steps=25, record_at=[0, 10, 25])
    assert got.times.tolist() == [0, 10, 25]
    for place, step in enumerate((0, 10, 25)):
        mean, covariance = in_full(problem, 0.2, 0.8, step)
        np.testing.assert_allclose(got.mean[place], mean, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(got.covariance[place], covariance, rtol=1e-10, atol=1e-13)
        expected = 0.5 * np.trace(problem.curvature.numpy() @ (covariance[:3, :3] + np.outer(mean[:3], mean[:3])))
        assert float(got.loss[place]) == pytest.approx(expected, rel=1e-11)


def test_cases_are_computed_as_if_alone() -> None:
    problem, steps = rotated(), 12
    schedule = np.linspace(0.05, 0.2, steps)
    both = exact_moments(
        problem, np.stack([schedule, schedule[::-1]]), [[0.5], [0.9]], num_steps=steps, noise_scale=[1.0, 4.0]
    )
    first = exact_moments(problem, schedule, 0.5, num_steps=steps)
    second = exact_moments(problem, schedule[::-1].copy(), 0.9, num_steps=steps)
    torch.testing.assert_close(both.mean, torch.stack([first.mean, second.mean]))
    torch.testing.assert_close(both.covariance, torch.stack([first.covariance, 4 * second.covariance]))


def test_schedules_longer_than_a_block_of_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = np.linspace(0.05, 0.2, 30)
    whole = exact_moments(rotated(), schedule, 0.5, num_steps=30)
    monkeypatch.setattr("lightball.dynamics.moments._NUMBERS_IN_MEMORY", 700)
    torch.testing.assert_close(exact_moments(rotated(), schedule, 0.5, num_steps=30).covariance, whole.covariance)


@settings(max_examples=25, deadline=None)
@given(rates, momenta, curvatures, st.floats(0.0, 10.0))
def test_covariance_is_linear_in_the_noise(lr: float, beta: float, h: float, c: float) -> None:
    one = exact_moments(Quadratic(h, 1.0, vector(1.0)), lr, beta, num_steps=20)
    scaled = exact_moments(Quadratic(h, c, vector(1.0)), lr, beta, num_steps=20)
    torch.testing.assert_close(scaled.covariance, c * one.covariance, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(scaled.mean, one.mean, rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(rates, momenta, curvatures, st.floats(0.1, 10.0))
def test_curvature_and_rate_scale_against_each_other(lr: float, beta: float, h: float, c: float) -> None:
    """L → L/c and η → cη leave x as it is; m shrinks by c, noise being scaled with the gradient."""
    one = exact_moments(Quadratic(h, 1.0, vector(1.5)), lr, beta, num_steps=20)
    other = exact_moments(Quadratic(h / c, 1 / c**2, vector(1.5)), c * lr, beta, num_steps=20)
    torch.testing.assert_close(other.mean[:, 0], one.mean[:, 0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other.mean[:, 1] * c, one.mean[:, 1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other.covariance[:, 0, 0], one.covariance[:, 0, 0], rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(rates, curvatures)
def test_momentum_zero_is_sgd(lr: float, h: float) -> None:
    got = exact_moments(Quadratic(h, 1.0, vector(1.0)), lr, 0.0, num_steps=15)
    mean, variance = 1.0, 0.0
    for k in range(15):
        mean, variance = mean - lr * (h * mean), (1 - lr * h) ** 2 * variance + lr**2
        assert float(got.mean[k + 1, 0]) == pytest.approx(mean, rel=1e-13)
        assert float(got.covariance[k + 1, 0, 0]) == pytest.approx(variance, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(rates, momenta, curvatures)
def test_stationary_variance_is_that_of_the_formula(lr: float, beta: float, h: float) -> None:
    got = stationary_covariance(Quadratic(h, 1.7, vector(0.0)), lr, beta)
    formula = lr * 1.7 / (h * (2 - lr * h * (1 - beta) / (1 + beta)))
    assert float(got[0, 0]) == pytest.approx(formula, rel=1e-8)


def test_stationary_covariance_is_the_limit_of_the_recursion() -> None:
    got = stationary_covariance(rotated(), [0.1, 0.3], [0.5, 0.9], noise_scale=[1.0, 3.0])
    late = exact_moments(rotated(), [[0.1], [0.3]], [[0.5], [0.9]], num_steps=1500, record_at=[1500])
    torch.testing.assert_close(got[0], late.covariance[0, 0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got[1], 3 * late.covariance[1, 0], rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(momenta, curvatures)
def test_stability_ends_where_the_paper_says(beta: float, h: float) -> None:
    largest = 2 * (1 + beta) / (1 - beta) / h
    assert is_stable(h, 0.999 * largest, beta)
    assert not is_stable(h, 1.001 * largest, beta)
    assert spectral_radius(0.0, largest, beta) == pytest.approx(1.0)


def test_what_is_unstable_is_infinite_and_says_so() -> None:
    problem = Quadratic(vector(1.0, 3.0), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double(), vector(1.0, 1.0))
    got = exact_moments(problem, [[0.1], [1.5]], [[0.9], [0.0]], num_steps=2000, record_at=[1, 1000, 2000])
    assert got.diverged.tolist() == [[False, False, False], [False, True, True]]
    for values in (got.mean, got.covariance, got.loss):
        assert bool(values[0].isfinite().all())
        assert bool(values[1, 0].isfinite().all())
        assert bool((values[1, 1:] == math.inf).all())
    assert bool((stationary_covariance(problem, 1.5) == math.inf).all())
    assert not bool(stationary_covariance(rotated(), 1.5).isnan().any())


def test_directions_without_curvature_wander_for_ever_and_without_noise_stay() -> None:
    assert float(stationary_covariance(Quadratic(0.0, 1.0, vector(1.0)), 0.1, 0.9)[0, 0]) == math.inf
    still = stationary_covariance(Quadratic(vector(0.0, 1.0), vector(0.0, 1.0), vector(1.0, 1.0)), 0.1, 0.9)
    assert float(still[0, 0]) == 0.0
    assert 0 < float(still[1, 1]) < math.inf


@pytest.mark.parametrize("noise", ["gaussian", "rademacher", "student-t"])
def test_simulation_with_any_noise_has_these_moments(noise: str) -> None:
    """20,000 trajectories; 12 numbers of 3 kinds of noise within 5 standard errors: false alarms below 1e-4."""
    problem = Quadratic(rotated().curvature, rotated().covariance, rotated().x0, noise=noise)  # type: ignore[arg-type]
    n, generator = 20_000, torch.Generator().manual_seed(1)
    x = problem.start(n)
    state = kernel.init(x["x"])
    for _ in range(15):
        _, gradient = problem.noisy_gradient(x, problem.draw(n, generator))
        moved, state = kernel.step(x["x"], gradient["x"], state, canonical(0.2, 0.7))
        x = {"x": moved}
    got = exact_moments(problem, 0.2, 0.7, num_steps=15, record_at=[15])
    both = torch.cat([x["x"], state["momentum_buffer"]], dim=1)
    centred = both - got.mean[0]
    assert bool((centred.mean(0).abs() < 5 * centred.std(0) / n**0.5).all())
    products = centred[:, :, None] * centred[:, None, :]
    assert bool(((products.mean(0) - got.covariance[0]).abs() < 5 * products.std(0) / n**0.5).all())
    # negative control: the moments of another momentum are refused
    other = exact_moments(problem, 0.2, 0.0, num_steps=15, record_at=[15])
    assert not bool(((products.mean(0) - other.covariance[0]).abs() < 5 * products.std(0) / n**0.5).all())


def orthogonal(dim: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(dim)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]


@pytest.mark.parametrize("dim", [3, 20])
def test_label_noise_on_a_quadratic_with_flat_directions_has_a_stationary_covariance(dim: int) -> None:
    """The same as without the rotation: rounding must not put noise into a direction without curvature."""
    q, curvatures = orthogonal(dim), torch.linspace(0, 2, dim, dtype=torch.float64)
    hessian = q @ torch.diag(curvatures) @ q.T
    hessian = (hessian + hessian.T) / 2
    rotated = stationary_covariance(Quadratic(hessian, 0.5 * hessian, torch.zeros(dim).double()), 0.1, 0.9)
    plain = stationary_covariance(Quadratic(curvatures, 0.5 * curvatures, torch.zeros(dim).double()), 0.1, 0.9)
    both = torch.block_diag(q, q)
    assert bool(plain.isfinite().all())
    torch.testing.assert_close(rotated, both @ plain @ both.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_flat_directions_with_noise_wander_for_ever_in_any_basis(scale: float) -> None:
    """A curvature that is 0 but for rounding is none, whichever sign the rounding has."""
    q = orthogonal(30)
    hessian = q @ torch.diag(torch.cat([torch.zeros(10), torch.linspace(1, 2, 20)]).double()) @ q.T
    problem = Quadratic(scale * (hessian + hessian.T) / 2, 1.0, torch.zeros(30).double())
    assert int((modes_of(problem).curvature == 0).sum()) == 10
    assert bool((stationary_covariance(problem, 0.1 / scale) == math.inf).all())


def test_noise_that_does_not_correlate_makes_no_pairs_in_any_basis() -> None:
    q = orthogonal(50)
    hessian = q @ torch.diag(torch.linspace(0.1, 2, 50, dtype=torch.float64)) @ q.T
    hessian = (hessian + hessian.T) / 2
    for covariance in (torch.tensor(1.0).double(), torch.eye(50).double(), 3.0 * hessian):
        assert len(modes_of(Quadratic(hessian, covariance, torch.zeros(50).double())).noise) == 50
    # Control: noise that is diagonal in other coordinates than the Hessian correlates all modes.
    other = torch.linspace(1, 2, 50, dtype=torch.float64)
    assert len(modes_of(Quadratic(hessian, other, torch.zeros(50).double())).noise) == 50 * 51 // 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"effective_lr": -0.1}, "lr is -0.1; required is a finite number ≥ 0"),
        ({"momentum": 1.0}, "momentum is 1; required is 0 ≤ momentum < 1"),
        (
            {"effective_lr": [0.1, 0.2, 0.3]},
            r"a schedule has shape \(3,\); required is a last axis with one value for each",
        ),
        ({"momentum": [[0.1], [0.2]], "effective_lr": [[0.1], [0.1], [0.1]]}, "required are shapes that broadcast"),
        ({"noise_scale": -1.0}, "noise_scale is -1.0; required are finite numbers ≥ 0"),
        ({"noise_scale": [1.0, 2.0]}, r"noise_scale has shape \(2,\), but the cases have shape \(\)"),
        (
            {"num_steps": 10**12},
            r"the moments of 1,000,000,000,001 records take 4.47e\+04 GiB; required are at most 4: ",
        ),
        ({"record_at": [11]}, "required are steps between 0 and num_steps = 10"),
    ],
)
def test_bad_input(wrong: dict[str, object], message: str) -> None:
    given = {"effective_lr": 0.1, "momentum": 0.9, "num_steps": 10, **wrong}
    with pytest.raises(InputError, match=message):
        exact_moments(Quadratic(1.0, 1.0, vector(1.0)), **given)  # type: ignore[arg-type]
