"""The slow SDE: its drift term by term against finite differences of Φ, laws, and a path in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightball.dynamics.manifold import geometry, hessian_trace, project
from lightball.dynamics.slow_sde import (
    Point,
    across_drift,
    along_drift,
    diffusion,
    drift,
    mixed_drift,
    point,
    simulate_slow,
)
from lightball.errors import InputError
from lightball.oracles import CovarianceOracle, FunctionOracle, LabelNoise

Term = Callable[[Point], Tensor]
TOLERANCE = 1e-6
FACTOR = torch.tensor(
    [[0.9, 0.1, -0.3], [-0.2, 0.8, 0.4], [0.5, -0.6, 0.3], [0.1, 0.7, -0.5]], dtype=torch.float64
)  # of noise along and across Γ, in three of the four dimensions


def bent(x: Tensor) -> Tensor:
    """Two equations in four dimensions: Γ is a curved surface."""
    one = x[:, 0] * x[:, 2] - 1 + 0.3 * x[:, 1] ** 2
    two = x[:, 1] * x[:, 3] - 0.5 * x[:, 0] + 0.2 * x[:, 2] ** 3
    return 0.5 * (one**2 + 3 * two**2)


def bent_oracle(turn: Tensor | None = None, scale: float = 1.0) -> FunctionOracle:
    """Noise whose covariance changes from place to place; the whole turned by an orthogonal matrix."""
    q = torch.eye(4, dtype=torch.float64) if turn is None else turn
    x0 = torch.tensor([1.1, 0.7, 0.9, 0.4], dtype=torch.float64)

    def factor(x: Tensor) -> Tensor:
        return scale * q @ (FACTOR * (1 + 0.1 * (x @ q)[:, :1, None]))

    return FunctionOracle(
        lambda x: bent(x @ q),
        lambda n, g: torch.randn(n, 3, generator=g, dtype=torch.float64),
        q @ x0,
        lambda x, sample: (factor(x) @ sample[..., None])[..., 0],
        factor,
    )


def hyperbola(**options: float) -> LabelNoise:
    x0 = torch.tensor([2.0, 0.5], dtype=torch.float64)
    return LabelNoise(lambda p: p.prod(dim=1, keepdim=True), torch.ones(1), 0.5, x0, **options)


def second_derivative_of_limit(oracle: CovarianceOracle, x: Tensor, matrix: Tensor, h: float = 0.02) -> Tensor:
    """½ ∂²Φ[M] for a symmetric M, by differences of order 6 along its eigenvectors."""
    weights, axes = torch.linalg.eigh(matrix)
    stencil = {0: -49 / 18, 1: 3 / 2, 2: -3 / 20, 3: 1 / 90}
    points = torch.stack([x + k * h * axes.mT for k in range(-3, 4)])
    limits = project(oracle, {"x": points.flatten(0, 1)})["x"].view_as(points)
    second = sum(stencil[abs(k)] * limits[k + 3] for k in range(-3, 4)) / h**2
    return 0.5 * weights @ second


@pytest.fixture(scope="module")
def place() -> tuple[FunctionOracle, Tensor, Point]:
    oracle = bent_oracle()
    x = project(oracle, oracle.start(1))
    return oracle, x["x"][0], point(oracle, x)


@pytest.fixture(scope="module")
def differences(place: tuple[FunctionOracle, Tensor, Point]) -> dict[str, Tensor]:
    """½ ∂²Φ of each part of Σ, and of the whole."""
    oracle, x, at = place
    p, n, sigma = at.geometry.tangent_projection()[0], at.geometry.normal_projection()[0], at.covariance[0]
    parts = {"along": p @ sigma @ p, "mixed": n @ sigma @ p + p @ sigma @ n, "across": n @ sigma @ n, "all": sigma}
    return {name: second_derivative_of_limit(oracle, x, part) for name, part in parts.items()}


TERMS: dict[str, Term] = {"along": along_drift, "mixed": mixed_drift, "across": across_drift}


@pytest.mark.parametrize("name", TERMS)
def test_each_term_is_half_the_second_derivative_of_the_limit(
    name: str, place: tuple[FunctionOracle, Tensor, Point], differences: dict[str, Tensor]
) -> None:
    torch.testing.assert_close(TERMS[name](place[2])[0], differences[name], rtol=0, atol=TOLERANCE)


def test_the_drift_is_half_the_second_derivative_and_needs_every_term_once(
    place: tuple[FunctionOracle, Tensor, Point], differences: dict[str, Tensor]
) -> None:
    at, whole = place[2], differences["all"]
    torch.testing.assert_close(drift(at)[0], whole, rtol=0, atol=TOLERANCE)
    for name, term in TERMS.items():  # control: dropped or doubled, each would miss by far
        for times in (0, 2):
            wrong = drift(at)[0] + (times - 1) * term(at)[0]
            assert float((wrong - whole).abs().max()) > 1e4 * TOLERANCE, f"{times} times {name} is not seen"


def test_directions_of_the_terms(place: tuple[FunctionOracle, Tensor, Point]) -> None:
    at = place[2]
    p, n = at.geometry.tangent_projection(), at.geometry.normal_projection()
    for projection, term in ((p, along_drift), (n, mixed_drift), (n, across_drift)):
        assert float((projection @ term(at)[..., None]).abs().max()) < 1e-13
    s = diffusion(at)
    torch.testing.assert_close(s @ s.mT, p @ at.covariance @ p, rtol=0, atol=1e-14)


def test_label_noise_descends_the_trace_of_the_hessian(place: tuple[FunctionOracle, Tensor, Point]) -> None:
    # Σ = cH: −(c/4) P ∇tr H, and nothing else.
    _, x, _ = place
    n = 2  # both equations are examples: L = 1/2 Σ ½ (√2 rᵢ)²

    def predict(p: Tensor) -> Tensor:
        one = p[:, 0] * p[:, 2] + 0.3 * p[:, 1] ** 2
        two = p[:, 1] * p[:, 3] - 0.5 * p[:, 0] + 0.2 * p[:, 2] ** 3
        return torch.stack((math.sqrt(2) * one, math.sqrt(6) * two), dim=1)

    noisy = LabelNoise(predict, torch.tensor([math.sqrt(2), 0.0], dtype=torch.float64), 0.3, x)
    at = point(noisy, {"x": x[None]})
    slope = torch.func.grad(lambda q: hessian_trace(noisy, {"x": q}).sum())(x[None])
    expected = -(0.3**2 / n / 4) * (at.geometry.tangent_projection() @ slope[..., None])[..., 0]
    torch.testing.assert_close(drift(at), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(across_drift(at), expected, rtol=0, atol=1e-13)
    assert float(expected.norm()) > 1e-3
    assert float(diffusion(at).abs().max()) < 1e-13


@settings(max_examples=8)
@given(st.lists(st.floats(-1, 1), min_size=16, max_size=16), st.floats(0.1, 3.0))
def test_the_drift_turns_with_the_problem_and_grows_with_the_variance(entries: list[float], scale: float) -> None:
    raw = torch.tensor(entries, dtype=torch.float64).view(4, 4) + 2 * torch.eye(4, dtype=torch.float64)
    turn, _ = torch.linalg.qr(raw)
    oracle = bent_oracle()
    x = project(oracle, oracle.start(1))["x"]
    expected = scale**2 * drift(point(oracle, {"x": x})) @ turn.mT
    found = drift(point(bent_oracle(turn, scale), {"x": x @ turn.mT}))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_the_hyperbola_in_closed_form() -> None:
    # Along (eˢ, e⁻ˢ): tr H = 2 cosh 2s and Σ = ¼H, so ds/dt = −⅛ tanh 2s, sinh 2s ∝ e^{−t/4}, x² − y² = 2 sinh 2s.
    oracle = hyperbola()
    path = simulate_slow(
        oracle,
        slow_time=4.0,
        dt=0.1,
        observables={
            "x² − y²": lambda x, m: x["x"][:, 0] ** 2 - x["x"][:, 1] ** 2,
            "loss": lambda x, m: oracle.loss(x),
        },
        num_records=5,
    )
    assert path.times.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(path.mean[:, 0], 3.75 * np.exp(-path.times / 4), rtol=0, atol=1e-7)
    assert round(float(path.mean[-1, 0]), 4) == 1.3795
    assert path.mean[:, 1].max() < 1e-30
    assert not path.standard_error.any()


def test_the_step_is_of_fourth_order_without_noise_along() -> None:
    def miss(dt: float) -> float:
        path = simulate_slow(
            hyperbola(),
            slow_time=2.0,
            dt=dt,
            observables={"d": lambda x, m: x["x"][:, 0] ** 2 - x["x"][:, 1] ** 2},
            num_records=2,
        )
        return abs(float(path.mean[-1, 0]) - 3.75 * math.exp(-0.5))

    assert 14 < miss(0.4) / miss(0.2) < 18


def circle(dim: int = 2) -> FunctionOracle:
    """Γ is the unit circle (or sphere), with noise of covariance ¼ I."""
    return FunctionOracle(
        lambda x: (x.square().sum(dim=1) - 1).square() / 8,
        lambda n, g: 0.5 * torch.randn(n, dim, generator=g, dtype=torch.float64),
        torch.eye(dim, dtype=torch.float64)[0],
        factor=lambda x: 0.5 * torch.eye(dim, dtype=torch.float64).expand(len(x), -1, -1),
    )


def test_noise_along_a_circle_is_brownian_motion_on_it() -> None:
    # By symmetry nothing drifts: E x₁ = e^{−t/8}, E x₁² = ½ (1 + e^{−t/2}) for variance ¼. Euler's steps of 0.05 miss
    # the mean by less than 1e-3. A right simulation fails at a fresh seed with probability 1e-4 (4 standard errors).
    oracle = circle()
    path = simulate_slow(
        oracle,
        slow_time=2.0,
        dt=0.05,
        observables={
            "x": lambda x, m: x["x"][:, 0],
            "x²": lambda x, m: x["x"][:, 0] ** 2,
            "loss": lambda x, m: oracle.loss(x),
        },
        num_trajectories=4_000,
        num_records=3,
    )
    exact = np.stack([np.exp(-path.times / 8), 0.5 * (1 + np.exp(-path.times / 2))], axis=1)
    assert np.all(np.abs(path.mean - [0, 0, 0])[:, 2] < 1e-28)
    gap = np.abs(path.mean[1:, :2] - exact[1:])
    assert np.all(gap < 4 * path.standard_error[1:, :2] + 1e-3), gap
    # Control: without noise the mean would stay at 1, ten times as far.
    assert 1 - exact[-1, 0] > 10 * (4 * path.standard_error[-1, 0] + 1e-3)


def test_two_draws_a_step_are_the_noise_of_two_steps() -> None:
    """On one noise the path of double steps is off from the path of single ones by O(dt), far less than its spread."""

    def end(dt: float, draws: int) -> float:
        options = {"observables": {"x": lambda x, m: x["x"][:, 1]}, "num_records": 2}
        return float(simulate_slow(circle(), slow_time=0.2, dt=dt, draws=draws, **options).mean[-1, 0])  # type: ignore[arg-type]

    fine = end(0.005, 1)
    assert 0 < abs(end(0.01, 2) - fine) < 0.01
    assert abs(end(0.01, 1) - fine) > 0.05  # control: other noise


def test_a_trajectory_does_not_cross_the_end_of_its_manifold() -> None:
    """L = ½(xy)² from x = 0.3: the Hessian across y = 0 is x², and noise takes x to 0, beyond which is another Γ."""
    crossing = FunctionOracle(
        lambda x: 0.5 * x.prod(dim=1) ** 2,
        lambda n, g: 0.5 * torch.randn(n, 2, generator=g, dtype=torch.float64),
        torch.tensor([0.3, 0.0], dtype=torch.float64),
        factor=lambda x: 0.5 * torch.eye(2, dtype=torch.float64).expand(len(x), 2, 2),
    )
    for dt in (0.1, 0.02, 0.005):
        with pytest.raises(InputError, match=r"smallest curvature across the minimizers goes from .* loses rank") as e:
            simulate_slow(crossing, slow_time=1.0, dt=dt, observables={}, num_trajectories=8)
        assert "\n" not in str(e.value)
    # Control: from farther away none gets there.
    far = torch.tensor([5.0, 0.0], dtype=torch.float64)
    path = simulate_slow(crossing, slow_time=1.0, dt=0.1, observables={}, num_trajectories=8, start=far)
    assert path.dt == pytest.approx(0.02)


def test_the_origin_is_a_point_like_others() -> None:
    line = FunctionOracle(
        lambda x: 0.5 * x[:, 0] ** 2,
        lambda n, g: torch.randn(n, 2, generator=g, dtype=torch.float64),
        torch.zeros(2, dtype=torch.float64),
        factor=lambda x: torch.eye(2, dtype=torch.float64).expand(len(x), 2, 2),
    )
    options = {"observables": {"y²": lambda x, m: x["x"][:, 1] ** 2}, "num_records": 3, "num_trajectories": 1_000}
    path = simulate_slow(line, slow_time=1.0, dt=0.1, **options)  # type: ignore[arg-type]
    # E y² = t; false at a fresh seed with probability 1e-4.
    assert np.all(np.abs(path.mean[:, 0] - path.times) <= 4 * path.standard_error[:, 0])


def test_a_seed_gives_its_path_again() -> None:
    def end(seed: int) -> float:
        path = simulate_slow(
            circle(), slow_time=0.2, dt=0.1, observables={"x": lambda x, m: x["x"][:, 1]}, num_records=2, seed=seed
        )
        return float(path.mean[-1, 0])

    assert end(3) == end(3)
    assert end(3) != end(4)


def test_a_hundred_dimensions() -> None:
    # The drift −¼ tr(Σ)(…) on a sphere: only the term along counts, −½ (dim − 1) σ² x.
    oracle = circle(100)
    at = point(oracle, oracle.start(1))
    torch.testing.assert_close(drift(at), -0.5 * 99 * 0.25 * oracle.start(1)["x"], rtol=0, atol=1e-9)
    assert geometry(oracle, oracle.start(1)).rank == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0.0}, "dt is 0; required is a finite number > 0"),
        ({"slow_time": math.inf}, "slow_time is inf; required is a finite number > 0"),
        (
            {"num_trajectories": 0},
            "num_trajectories is 0, num_records 51 and draws 1; required are at least",
        ),
        ({"dt": 20.0, "slow_time": 2e3}, "use a smaller time step"),
    ],
)
def test_bad_input(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        simulate_slow(hyperbola(), **{"slow_time": 1.0, "dt": 0.1, "observables": {}, "num_trajectories": 1, **options})  # type: ignore[arg-type]
    assert message in str(error.value)


def test_a_covariance_that_is_not_known_is_asked_for() -> None:
    oracle = FunctionOracle(
        lambda x: 0.5 * (x.prod(dim=1) - 1) ** 2,
        lambda n, g: torch.randn(n, 2, generator=g, dtype=torch.float64),
        torch.tensor([2.0, 0.5], dtype=torch.float64),
    )
    with pytest.raises(InputError, match="give FunctionOracle factor="):
        simulate_slow(oracle, slow_time=1.0, dt=0.1, observables={})
