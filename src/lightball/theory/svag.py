"""SVAG(ℓ): the curvature of a step turned down at the same noise, and what is left between SGD and SGDM then.

On a quadratic from x₀ = (1, …, 1): SVAG(ℓ) takes ℓ steps of rate η/ℓ for one of SGD, with ℓ times the noise covariance.
In a time η the loss then changes by (arXiv:2307.15196, §2 and §5)

    − η ‖∇L‖²   +   ½ η²/ℓ ∇Lᵀ H ∇L   +   ½ η² tr(H Σ)
      descent       curvature-induced     noise-induced

so that only the curvature-induced term falls, as 1/ℓ, and with it the gap between SGD and SGDM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from lightball.dynamics.moments import exact_moments
from lightball.dynamics.population import Arm, Moments, Observer, loss_of, simulate
from lightball.dynamics.weak_error import WeakError, error_of, records, steps_to
from lightball.errors import InputError
from lightball.oracles import Noise, Quadratic, Svag, seed_of
from lightball.oracles.noise import check_noise
from lightball.theory.checks import check_trajectories, listed
from lightball.theory.svag_json import svag_json

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Memory = Literal["steps", "time"]
ELLS = (1, 2, 4, 8, 16, 32, 64)
BEYOND = 8  # exact moments reach so many times further than the simulation
NUM_DRAWS = 100_000  # pairs of gradients, for the terms


@dataclass(frozen=True)
class SvagSettings:
    """What to measure.

    Args:
        lr: η of SGD and SGDM at ℓ = 1.
        momentum: β of SGDM at ℓ = 1.
        memory: what stays as ℓ grows: "steps", β itself (memory of 1/(1 − β) steps), or "time", with 1 − β divided by
            ℓ, so that the memory lasts as long in the time ηk. Only with "steps" does the theorem bring them together.
        spectrum: curvatures of the quadratic, positive.
        variance: σ² of the gradient noise in each coordinate.
        noise: its shape, in the simulation.
        ells: values of ℓ that are simulated.
        horizon: T; runs have ℓT/η steps.
        trajectories: of each algorithm, at each ℓ; 0 for exact moments alone.
    """

    lr: float = 1.5
    momentum: float = 0.9
    memory: Memory = "steps"
    spectrum: tuple[float, ...] = (1.0, 0.1)
    variance: float = 1.0
    noise: Noise = "gaussian"
    ells: tuple[int, ...] = ELLS
    horizon: float = 30.0
    trajectories: int = 10_000
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 < self.momentum < 1:
            raise InputError(
                f"momentum is {self.momentum:g}; required is 0 < momentum < 1, since SGD without it is always beside "
                "it; 0.9 is usual"
            )
        if self.memory not in get_args(Memory):
            raise InputError(f"memory is {self.memory!r}; required is one of {', '.join(get_args(Memory))}")
        if not self.spectrum or not all(0 < h < math.inf for h in self.spectrum):
            raise InputError(f"spectrum is {listed(self.spectrum)}; required are finite curvatures > 0: try 1,0.1")
        if not 0 <= self.variance < math.inf:
            raise InputError(f"variance is {self.variance:g}; required is a finite number ≥ 0; 1 is the default")
        if len(set(self.ells)) < 2 or min(self.ells) < 1:
            raise InputError(f"ells are {listed(self.ells)}; required are two or more different numbers ≥ 1: try 1,2,4")
        check_trajectories(self.trajectories, none_allowed=True)
        check_noise(self.noise)
        steps_to(self.horizon, self.lr)

    @property
    def simulated_ells(self) -> tuple[int, ...]:
        """Those asked for, the smallest first."""
        return tuple(sorted(set(self.ells)))

    @property
    def all_ells(self) -> tuple[int, ...]:
        """With those for exact moments alone: powers of two times the largest."""
        largest = max(self.ells)
        more = [largest * 2**i for i in range(1, BEYOND.bit_length())]
        return (*self.simulated_ells, *more)

    def momentum_at(self, ell: int) -> float:
        return self.momentum if self.memory == "steps" else 1 - (1 - self.momentum) / ell


@dataclass(frozen=True)
class Measured:
    """A mean with its standard error."""

    mean: float
    se: float


@dataclass(frozen=True)
class Terms:
    """Changes of the loss at x₀ in a time η: two from the formula, beside what pairs of SVAG's gradients give."""

    ell: int
    curvature: float
    noise: float
    measured_curvature: Measured
    measured_noise: Measured


@dataclass(frozen=True)
class Curves:
    """Expected losses of SGD and SGDM under SVAG(ℓ) at times t; simulated ones where there is a simulation."""

    ell: int
    times: tuple[float, ...]
    exact: dict[str, tuple[float, ...]]
    simulated: dict[str, tuple[Measured, ...]]


@dataclass(frozen=True)
class Gap:
    """|E L(SGD) − E L(SGDM)| by 1/ℓ, exact and simulated; their order in 1/ℓ is that of a :class:`WeakError`."""

    exact: WeakError
    simulated: WeakError | None


@dataclass(frozen=True)
class SvagResult:
    """The result of :func:`run_svag`: ``largest`` is the gap max over t ≤ T, ``final`` that at T."""

    settings: SvagSettings
    descent: float
    terms: tuple[Terms, ...]
    curves: tuple[Curves, ...]
    largest: Gap
    final: Gap

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; null for what is not known or infinite."""
        return svag_json(self)


def run_svag(settings: SvagSettings, observer: Observer | None = None) -> SvagResult:
    """Measure the terms and the gap. Cost: ℓT/η steps of two arms for each ℓ that is simulated.

    Raises:
        InputError: the learning rate does not fit the horizon, or a value is out of range.
    """
    start = torch.ones(len(settings.spectrum), dtype=torch.float64, device=settings.device)
    oracle = Quadratic(start.new_tensor(settings.spectrum), settings.variance, start, settings.noise)
    exact = {ell: _exact(settings, oracle, ell) for ell in settings.all_ells}
    simulated = {
        ell: _simulated(settings, oracle, ell, observer) for ell in settings.simulated_ells if settings.trajectories
    }
    steps = records(steps_to(settings.horizon, settings.lr))
    return SvagResult(
        settings,
        descent=-settings.lr * float((oracle.curvature * start).square().sum()),
        terms=tuple(_terms(settings, oracle, ell) for ell in settings.simulated_ells),
        curves=tuple(
            _curves(ell, [settings.lr * k for k in steps], exact[ell], simulated.get(ell))
            for ell in settings.simulated_ells
        ),
        largest=_gap(
            {ell: float((sgd - sgdm).abs().max()) for ell, (sgd, sgdm) in exact.items()},
            {ell: error_of(moments, "SGDM", "SGD", "loss") for ell, moments in simulated.items()},
        ),
        final=_gap(
            {ell: float((sgd - sgdm).abs()[-1]) for ell, (sgd, sgdm) in exact.items()},
            {ell: _last(moments) for ell, moments in simulated.items()},
        ),
    )


def _exact(settings: SvagSettings, oracle: Quadratic, ell: int) -> Float[Tensor, "arm record"]:
    """Expected losses of SGD and SGDM, at the steps that are recorded."""
    num_steps = steps_to(settings.horizon, settings.lr)
    return exact_moments(
        oracle,
        [[settings.lr / ell], [settings.lr / ell]],
        [[0.0], [settings.momentum_at(ell)]],
        num_steps=num_steps * ell,
        record_at=[k * ell for k in records(num_steps)],
        noise_scale=ell,
    ).loss


def _simulated(settings: SvagSettings, oracle: Quadratic, ell: int, observer: Observer | None) -> Moments:
    num_steps = steps_to(settings.horizon, settings.lr)
    rate = settings.lr / ell
    return simulate(
        Svag(oracle, ell),
        {"SGD": Arm(rate), "SGDM": Arm(rate, settings.momentum_at(ell))},
        num_steps * ell,
        settings.trajectories,
        {"loss": loss_of(oracle)},
        record_at=[k * ell for k in records(num_steps)],
        seed=seed_of(use="svag", seed=settings.seed, ell=ell),
        device=settings.device,
        observer=observer,
    )


def _terms(settings: SvagSettings, oracle: Quadratic, ell: int) -> Terms:
    """From pairs of independent gradients g, g′: E gᵀHg′ = ∇LᵀH∇L and ½ E (g − g′)ᵀH(g − g′) = tr(H Cov g)."""
    h, svag = oracle.curvature, Svag(oracle, ell)
    scale = 0.5 * settings.lr**2 / ell
    generator = torch.Generator(settings.device).manual_seed(seed_of(use="svag terms", seed=settings.seed, ell=ell))
    one, other = (svag.noisy_gradient(svag.start(NUM_DRAWS), svag.draw(NUM_DRAWS, generator))[1]["x"] for _ in range(2))
    return Terms(
        ell,
        curvature=scale * float((h**3 * oracle.x0**2).sum()),
        noise=scale * ell * float((h * oracle.covariance).sum()),
        measured_curvature=_mean(scale * (one * h * other).sum(dim=1)),
        measured_noise=_mean(scale * 0.5 * ((one - other) ** 2 * h).sum(dim=1)),
    )


def _mean(values: Float[Tensor, "draw"]) -> Measured:
    return Measured(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def _curves(ell: int, times: Sequence[float], exact: Float[Tensor, "arm record"], found: Moments | None) -> Curves:
    names = ("SGD", "SGDM")
    simulated = {}
    if found is not None:
        columns = zip(found.arms, found.mean[..., 0], found.standard_error[..., 0], strict=True)
        simulated = {name: tuple(map(Measured, mean.tolist(), se.tolist())) for name, mean, se in columns}
    return Curves(ell, tuple(times), {name: tuple(exact[i].tolist()) for i, name in enumerate(names)}, simulated)


def _last(moments: Moments) -> tuple[float, float]:
    mean, se = moments.difference("SGD", "SGDM")
    return abs(float(mean[-1, 0])), float(se[-1, 0])


def _gap(exact: dict[int, float], simulated: dict[int, tuple[float, float]]) -> Gap:
    def by_ell(found: dict[int, tuple[float, float]]) -> WeakError:
        return WeakError(tuple(1 / ell for ell in found), *zip(*found.values(), strict=True))

    known = {ell: (value if math.isfinite(value) else math.inf, 0.0) for ell, value in exact.items()}
    return Gap(by_ell(known), by_ell(simulated) if simulated else None)
