"""The SDEs: against closed forms, against torchsde, and what SGD, SGDM and SVAG are of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torchsde
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lightball.dynamics.moments import exact_moments
from lightball.dynamics.population import Moments, simulate
from lightball.dynamics.sde import coarse_arm, momentum_of, simulate_sde
from lightball.dynamics.sde_moments import sde_moments, underdamped_sde_moments
from lightball.dynamics.sde_orders import Algorithm, errors_against_sde
from lightball.dynamics.weak_error import WeakError
from lightball.errors import InputError
from lightball.oracles import CovarianceOracle, Diffusion, FunctionOracle, Quadratic, seed_of

LR, DAMPING = 0.1, 3.0
X0 = torch.tensor([1.0, -0.5], dtype=torch.float64)
HESSIAN = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
NOISE = torch.tensor([[4.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)


def loss(x: Tensor) -> Tensor:
    return (0.5 * x**2 + 0.25 * torch.cos(2 * x)).sum(dim=1) + 0.2 * x[:, 0] * x[:, 1]


def spread(x: Tensor) -> Tensor:
    """A root of the covariance that depends on x."""
    a, b = x.unbind(dim=1)
    rows = torch.stack((2 + torch.sin(a), 0.5 * b), dim=1), torch.stack((0 * a, 2 + torch.sin(b)), dim=1)
    return torch.stack(rows, dim=1)


def curved(scale: float = 1.0) -> FunctionOracle:
    return FunctionOracle(
        loss,
        lambda n, generator: torch.randn(n, 2, generator=generator, dtype=torch.float64),
        X0,
        noise=lambda x, z: scale * (spread(x) @ z[..., None])[..., 0],
        factor=lambda x: scale * spread(x),
    )


@pytest.mark.parametrize("damping", [None, DAMPING])
def test_the_scheme_tends_to_the_exact_moments_with_order_1(damping: float | None) -> None:
    """In law the scheme is SGD or SGDM with η/n on n times the noise, whose moments are exact too."""
    quadratic, times = Quadratic(HESSIAN, NOISE, X0), [0.5, 2.0]
    exact = (
        sde_moments(quadratic, LR, times) if damping is None else underdamped_sde_moments(quadratic, LR, damping, times)
    )
    largest = []
    for n in (32, 64, 128):
        momentum = 0.0 if damping is None else momentum_of(LR / n, damping)
        steps = [round(t / LR) * n for t in times]
        scheme = exact_moments(quadratic, LR / n, momentum, num_steps=steps[-1], record_at=steps, noise_scale=n)
        size = exact.covariance.shape[-1]  # the first-order equation has no M
        gaps = (scheme.mean[..., :size] - exact.mean, scheme.covariance[..., :size, :size] - exact.covariance)
        largest.append(max(float(gap.abs().max()) for gap in gaps))
    assert largest[-1] < 0.01
    for coarse, fine in pairwise(largest):
        assert math.log2(coarse / fine) == pytest.approx(1, abs=0.1)


def test_the_ornstein_uhlenbeck_process_by_hand() -> None:
    """E X = e^{−ht} x₀ and Var X = ησ² (1 − e^{−2ht})/2h, in 40,000 trajectories with steps of η/32.

    The scheme is off by less than a third of a standard error; 4 z and χ² tests, at 1e-4 together.
    """
    h, variance, n = 1.5, 4.0, 40_000
    oracle = Quadratic(h, variance, torch.ones(1, dtype=torch.float64))
    found = simulate_sde(oracle, 0.05, 20, n, {"x": lambda x, m: x["x"][:, 0]}, substeps=32, record_at=[5, 20], seed=1)
    for record, t in enumerate((0.25, 1.0)):
        mean, var = math.exp(-h * t), 0.05 * variance * -math.expm1(-2 * h * t) / (2 * h)
        z = (found.mean[0, record, 0] - mean) / math.sqrt(var / n)
        ratio = found.variance[0, record, 0] / var
        assert abs(z) < stats.norm.isf(1e-4 / 8)
        assert abs(ratio - 1) * math.sqrt(n / 2) < stats.norm.isf(1e-4 / 8)


class FirstOrder(torch.nn.Module):
    """dX = −∇L dt + √η S dW as torchsde wants it."""

    noise_type, sde_type = "general", "ito"

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        a, b = x.unbind(dim=1)
        return -torch.stack((a - 0.5 * torch.sin(2 * a) + 0.2 * b, b - 0.5 * torch.sin(2 * b) + 0.2 * a), dim=1)

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        return self.scale * math.sqrt(LR) * spread(x)


class Underdamped(torch.nn.Module):
    """dX = −M dt, dM = c (∇L − M) dt + c √η S dW."""

    noise_type, sde_type = "general", "ito"

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first_order = FirstOrder(scale)

    def f(self, t: Tensor, z: Tensor) -> Tensor:
        x, m = z.split(2, dim=1)
        return torch.cat((-m, DAMPING * (-self.first_order.f(t, x) - m)), dim=1)

    def g(self, t: Tensor, z: Tensor) -> Tensor:
        noise = DAMPING * self.first_order.g(t, z[:, :2])
        return torch.cat((torch.zeros_like(noise), noise), dim=1)


N, STEPS, SUBSTEPS = 20_000, 15, 8
OBSERVED = {
    "x": lambda x: x[:, 0],
    "y": lambda x: x[:, 1],
    "x²": lambda x: x[:, 0] ** 2,
    "y²": lambda x: x[:, 1] ** 2,
    "xy": lambda x: x[:, 0] * x[:, 1],
}


def smallest_p(damping: float | None, scale: float) -> float:
    """Of two-sample z tests of all observables at 3 times, ours beside torchsde's; times their number."""
    records = [5, 10, 15]
    ours = simulate_sde(
        curved(),
        LR,
        STEPS,
        N,
        {name: lambda x, m, of=of: of(x["x"]) for name, of in OBSERVED.items()},
        damping,
        SUBSTEPS,
        records,
    )
    equation = FirstOrder(scale) if damping is None else Underdamped(scale)
    start = X0.expand(N, 2) if damping is None else torch.cat((X0, torch.zeros(2).double())).expand(N, 4)
    times = torch.tensor([0, *records], dtype=torch.float64) * LR
    path = torchsde.BrownianInterval(0, 2, size=(N, 2), dtype=torch.float64, entropy=3)
    with torch.no_grad():
        theirs = torchsde.sdeint(equation, start, times, bm=path, method="euler", dt=LR / SUBSTEPS)[1:, :, :2]
    ps = []
    for record, x in enumerate(theirs):
        for i, of in enumerate(OBSERVED.values()):
            values = of(x).numpy()
            error = math.hypot(ours.standard_error[0, record, i], values.std() / math.sqrt(N))
            ps.append(2 * stats.norm.sf(abs(ours.mean[0, record, i] - values.mean()) / error))
    return min(ps) * len(ps)


@pytest.mark.parametrize("damping", [None, DAMPING])
def test_torchsde_agrees(damping: float | None) -> None:
    """On a loss and a noise that are not linear. A right simulation fails at a fresh seed with probability 1e-3."""
    assert smallest_p(damping, 1.0) > 1e-3
    # Control: a tenth more noise.
    assert smallest_p(damping, 1.1) < 1e-3


@settings(deadline=None, max_examples=10)
@given(st.floats(0, 0.99), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_a_coarse_arm_is_the_algorithm_on_the_mean_noise(
    momentum: float, substeps: int, num_steps: int, seed: int
) -> None:
    oracle = Diffusion(curved(), substeps)
    arm = coarse_arm(LR, momentum, num_steps, substeps)
    ends = simulate(
        oracle,
        {"coarse": arm},
        num_steps * substeps,
        1,
        {"x": lambda x, m: x["x"][:, 0], "y": lambda x, m: x["x"][:, 1], "m": lambda x, m: m["x"][:, 0]},
        record_at=[num_steps * substeps],
        seed=seed,
    ).mean[0, 0]
    x, m = oracle.start(1)["x"], torch.zeros(1, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed_of(use="population", seed=seed, chunk=0))
    for _ in range(num_steps):
        gradients = [oracle.noisy_gradient({"x": x}, oracle.draw(1, generator))[1]["x"] for _ in range(substeps)]
        m = momentum * m + (1 - momentum) * torch.stack(gradients).mean(dim=0)
        x = x - LR * m
    np.testing.assert_allclose(ends, [*x[0].tolist(), float(m[0, 0])], rtol=1e-9, atol=1e-9)


def errors(
    oracle_at: Callable[[float], CovarianceOracle],
    algorithms: dict[str, Algorithm],
    lrs: list[float],
    **options: Any,
) -> dict[tuple[str, str], WeakError]:
    found = errors_against_sde(oracle_at, algorithms, lrs, 1.0, {"x": lambda x, m: x["x"][:, 0]}, **options)
    return {(algorithm, equation): one for (algorithm, equation, _), one in found.items()}


def local_order(errors: WeakError) -> tuple[float, float]:
    """The 95 % interval of the order between the two smallest rates."""
    local = errors.order().local
    assert local is not None
    return local.ci95


RATES = [2.0**-k for k in (3, 4, 5, 6)]


@pytest.mark.parametrize("kind", ["quadratic", "curved"])
def test_orders(kind: str) -> None:
    """With noise of variance 1/η: order 1 against the right SDE, 0 against the other one."""

    def oracle_at(lr: float) -> CovarianceOracle:
        return Quadratic(HESSIAN, NOISE / lr / 4, X0) if kind == "quadratic" else curved(0.15 / math.sqrt(lr))

    algorithms = {"SGD": Algorithm(), "SVAG": Algorithm(ell=4), "SGDM": Algorithm(damping=DAMPING)}
    found = errors(oracle_at, algorithms, RATES, damping=DAMPING, substeps=16, num_trajectories=2000)
    for pair in (("SGD", "first order"), ("SGDM", "underdamped")):
        low, high = local_order(found[pair])
        assert 0.5 < low < 1 < high < 1.5, pair
    for pair in (("SGD", "underdamped"), ("SGDM", "first order")):
        assert local_order(found[pair])[1] < 0.5, pair
        assert min(found[pair].errors) > 0.03, pair
    # A step of SVAG(4) is a quarter of SGD's; both against an SDE with steps of a sixteenth.
    sgd, svag = (found[name, "first order"] for name in ("SGD", "SVAG"))
    for big, small, noise in zip(sgd.errors, svag.errors, svag.standard_errors, strict=True):
        expected = big * (1 / 4 - 1 / 16) / (1 - 1 / 16)
        assert small == pytest.approx(expected, rel=0.15, abs=2 * noise)


def test_errors_are_the_exact_ones() -> None:
    """On a quadratic: the largest |E x| of SGD minus that of the scheme, within 4 standard errors (1e-4 each)."""
    oracle = Quadratic(HESSIAN, 20 * NOISE, X0)
    found = errors(lambda lr: oracle, {"SGD": Algorithm()}, [1 / 8, 1 / 16], num_trajectories=2000)
    one = found["SGD", "first order"]
    for lr, error, noise in zip(one.etas, one.errors, one.standard_errors, strict=True):
        k = round(1 / lr)
        sgd = exact_moments(oracle, lr, num_steps=k).mean[:, 0]
        scheme = exact_moments(oracle, lr / 16, num_steps=16 * k, record_at=range(0, 16 * k + 1, 16)).mean[:, 0]
        exact = float((sgd - scheme).abs().max())
        assert abs(error - exact) < 4 * noise
        assert noise < exact / 3


def test_own_noise_is_that_of_the_oracle() -> None:
    """E x² of SGD and SVAG with Rademacher noise, apart from the SDE: the exact errors within 4 standard errors.

    A right one fails at a fresh seed with probability 2e-4 at most.
    """
    oracle = Quadratic(2.0, 1.0, torch.ones(1, dtype=torch.float64), "rademacher")
    found = errors_against_sde(
        lambda lr: oracle,
        {"SGD": Algorithm(), "SVAG": Algorithm(ell=3)},
        [0.25],
        1.0,
        {"x²": lambda x, m: x["x"][:, 0] ** 2},
        own_noise=True,
        num_trajectories=20_000,
    )

    def square(steps: int, noise_scale: float) -> Tensor:
        """E x² at the four steps of SGD, from steps of a ``steps``-th of its rate."""
        moments = exact_moments(
            oracle, 0.25 / steps, num_steps=4 * steps, record_at=range(0, 4 * steps + 1, steps), noise_scale=noise_scale
        )
        return moments.mean[:, 0] ** 2 + moments.covariance[:, 0, 0]

    for name, ell in (("SGD", 1), ("SVAG", 3)):
        one = found[name, "first order", "x²"]
        exact = float((square(ell, ell) - square(16, 16)).abs().max())
        assert abs(one.errors[0] - exact) < 4 * one.standard_errors[0]
        # Control: without SVAG's larger noise.
        without = float((square(ell, 1) - square(16, 16)).abs().max())
        assert ell == 1 or abs(one.errors[0] - without) > 4 * one.standard_errors[0]


def test_rates_do_not_share_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits take errors at different rates as independent, also those of as many steps."""
    seeds: list[int] = []

    def noticed(*arguments: Any, **named: Any) -> Moments:
        seeds.append(named["seed"])
        return simulate(*arguments, **named)

    monkeypatch.setattr("lightball.dynamics.sde_orders.simulate", noticed)
    for seed in (0, 1):
        errors(lambda lr: Quadratic(1.0, 1.0, X0), {"SGD": Algorithm()}, [0.31, 0.3], num_trajectories=40, seed=seed)
    assert len(set(seeds)) == 4


@pytest.mark.parametrize("own_noise", [False, True])
def test_a_rate_at_which_sgd_diverges_has_an_infinite_error(own_noise: bool) -> None:
    """At ηh = 30, SGD grows by 29 a step for 250 steps and passes what float64 holds; the SDE's steps are stable."""
    start = torch.ones(1, dtype=torch.float64)
    found = errors_against_sde(
        lambda lr: Quadratic(60.0 if lr == 0.5 else 1.0, 1.0, start),
        {"SGD": Algorithm()},
        [0.5, 0.25],
        125.0,
        {"x": lambda x, m: x["x"][:, 0]},
        own_noise=own_noise,
        num_trajectories=40,
        substeps=32,
    )["SGD", "first order", "x"]
    assert [found.errors[0], found.standard_errors[0]] == [math.inf, math.inf]
    assert math.isfinite(found.errors[1])


def test_what_cannot_be_is_refused() -> None:
    oracle = Quadratic(1.0, 1.0, X0)
    with pytest.raises(InputError) as error:
        simulate_sde(oracle, 0.5, 4, 10, {"x": lambda x, m: x["x"][:, 0]}, damping=4.0, substeps=1)
    assert str(error.value) == (
        "damping × effective_lr is 2; required is a number in (0, 1], since momentum is 1 minus it"
    )
    with pytest.raises(InputError) as error:
        errors(lambda lr: oracle, {"svag": Algorithm(ell=3)}, [0.1], substeps=16)
    assert str(error.value) == ("substeps is 16; required is a multiple of every ell, but 'svag' has ell 3")
    bare = FunctionOracle(loss, lambda n, g: torch.randn(n, 2, generator=g, dtype=torch.float64), X0)
    with pytest.raises(InputError, match="this oracle has no noise covariance, which an SDE needs"):
        simulate_sde(bare, 0.1, 4, 10, {"x": lambda x, m: x["x"][:, 0]})
