"""The largest stable learning rate by momentum: 2(1 + β)/((1 − β)h) in theory, and where a simulation begins to grow.

In the canonical form m' = β m + (1 − β) g, x' = x − η m' on L = h x²/2, momentum lets the learning rate be larger:
this is what it is good for where curvature, not noise, is the limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightball.dynamics import Stepper
from lightball.dynamics.population import Observer
from lightball.errors import InputError
from lightball.oracles import Quadratic, seed_of
from lightball.rules import canonical, kernel
from lightball.theory.checks import check_momenta

MOMENTA = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Of the mean square at the end of a probe to that in its middle. Noise that adds up, and does most at the limit itself,
# doubles it, and makes it 2.4 times as large where a probe lasts 10 memories of the buffer. By chance, at the limit,
# 64 replicas exceed four times once in ten thousand, or in 200 for so short a probe; 256 hardly ever.
_GROWTH = 4.0
# Where it should be 7, sixfold growth and its noise, 64 replicas stay below four times once in ten million.
_SURELY_SEEN = 6.0
LEAST_REPLICAS = 64
MEMORIES = 10  # of 1/(1 − β) steps; the mean square of a stable run still rises eightfold in a probe shorter than one
LONGEST = 10_000  # steps, to which a probe is lengthened unasked
FINEST = 1e-12  # resolution
_CURVATURES = (1e-100, 1e100)  # their squares are floats


@dataclass(frozen=True)
class StabilitySettings:
    """What to simulate: for each momentum β a bisection of the learning rate, each probe a run of ``num_steps`` steps.

    Args:
        momenta: β.
        curvature: h > 0.
        num_steps: of a probe, at least; it lasts 10 memories 1/(1 − β) of the largest momentum, if these are no more
            than 10,000 steps. Growth slower than 6 times in half of them may not be seen.
        replicas: of each probe, started at 1, with gradient noise of variance h²: all curvatures are alike.
        resolution: relative width at which the bisection ends.
    """

    momenta: tuple[float, ...] = MOMENTA
    curvature: float = 1.0
    num_steps: int = 1_000
    replicas: int = 256
    resolution: float = 1e-3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_momenta(self.momenta)
        least, most = _CURVATURES
        if not least <= self.curvature <= most:
            raise InputError(f"curvature is {self.curvature:g}; required is a number from {least:g} to {most:g}: try 1")
        if self.num_steps < 100:
            raise InputError(f"num_steps is {self.num_steps}; required are at least 100, for growth to show")
        if self.replicas < LEAST_REPLICAS:
            raise InputError(
                f"replicas is {self.replicas}; required are at least {LEAST_REPLICAS}, for growth to stand out of noise"
            )
        if not FINEST <= self.resolution < 1:
            raise InputError(
                f"resolution is {self.resolution:g}; required is a number from {FINEST:g} to below 1: try 0.001"
            )
        if self.probe_steps > max(self.num_steps, LONGEST):
            raise InputError(
                f"momentum {max(self.momenta):.15g} forgets in {self.probe_steps // MEMORIES:,} steps, and a probe of "
                f"{MEMORIES} times as many takes long: ask for {self.probe_steps} steps, or choose a smaller "
                "momentum"
            )

    @property
    def probe_steps(self) -> int:
        """Steps of a probe: so many as are asked for, and as long a memory takes."""
        return max(self.num_steps, math.ceil(MEMORIES / (1 - max(self.momenta)) * (1 - 1e-12)))

    def blind(self, momentum: float) -> float:
        """How far beyond the true limit growth may be too slow to be seen; an absolute learning rate.

        Beyond the limit by ε/h, x changes its sign and grows by a factor 1 + δ in a step, where the characteristic
        equation gives δ + δ²/(1 − β) = ε(1 + δ). Growth shows if (1 + δ)^K ≥ 6 in a probe of K steps.
        """
        delta = math.expm1(math.log(_SURELY_SEEN) / self.probe_steps)
        return delta * (1 + delta / (1 - momentum)) / (1 + delta) / self.curvature


@dataclass(frozen=True)
class Frontier:
    """The largest stable learning rate at one momentum.

    Args:
        momentum: β.
        exact: 2(1 + β)/((1 − β)h).
        stable: the largest rate that did not grow.
        growing: the smallest that did.
        low: ``stable`` less what is too slow to be seen: the limit lies between here and ``growing``.
    """

    momentum: float
    exact: float
    stable: float
    growing: float
    low: float

    @property
    def simulated(self) -> float:
        """The middle of what the simulation leaves open."""
        return (self.low + self.growing) / 2

    @property
    def agrees(self) -> bool:
        """Whether the closed form lies in what the simulation leaves open."""
        return self.low <= self.exact <= self.growing


@dataclass(frozen=True)
class Stability:
    """What was measured."""

    settings: StabilitySettings
    results: tuple[Frontier, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers; ``limit`` is the interval that the simulation leaves open."""
        return {
            "curvature": self.settings.curvature,
            "num_steps": self.settings.probe_steps,
            "replicas": self.settings.replicas,
            "seed": self.settings.seed,
            "results": [
                {
                    "momentum": one.momentum,
                    "exact": one.exact,
                    "simulated": one.simulated,
                    "limit": [one.low, one.growing],
                    "largest_stable": one.stable,
                    "smallest_growing": one.growing,
                }
                for one in self.results
            ],
        }


def largest_stable_lr(momentum: float, curvature: float = 1.0) -> float:
    """2(1 + β)/((1 − β)h), in the canonical form; 2(1 + β)/h for torch's learning rate γ = (1 − β)η."""
    return 2 * (1 + momentum) / ((1 - momentum) * curvature)


def run_stability(settings: StabilitySettings, observer: Observer | None = None) -> Stability:
    """Double the learning rate until trajectories grow, then bisect, for all momenta at once.

    Nothing here knows the closed form. Cost: some 20 probes, each of `StabilitySettings.probe_steps` steps of about
    60 µs.
    """
    probe = _Probe(settings)
    stable = torch.zeros(len(settings.momenta), dtype=torch.float64)
    growing = torch.full_like(stable, torch.inf)
    rounds = 8 - math.log2(settings.resolution)
    if observer:
        observer.begin("looking for growth", rounds)
    while bool((growing.isinf() | (growing - stable > settings.resolution * growing)).any()):
        middle = torch.where(growing.isinf(), (2 * stable).clamp(min=1 / settings.curvature), (stable + growing) / 2)
        grows = probe.grows(middle)
        growing = torch.where(grows, middle, growing)
        stable = torch.where(grows, stable, middle)
        if observer:
            observer.advance(1)
    return Stability(
        settings,
        tuple(
            Frontier(beta, largest_stable_lr(beta, settings.curvature), low, high, max(low - settings.blind(beta), 0.0))
            for beta, low, high in zip(settings.momenta, stable.tolist(), growing.tolist(), strict=True)
        ),
    )


class _Probe:
    """Whether trajectories grow at given learning rates, one for each momentum; the step is traced once."""

    def __init__(self, settings: StabilitySettings) -> None:
        x0 = torch.ones(1, dtype=torch.float64, device=settings.device)
        self.oracle = Quadratic(settings.curvature, settings.curvature**2, x0)
        self.stepper = Stepper(self.oracle)
        self.settings = settings
        self.momentum = torch.tensor(settings.momenta).to(x0).repeat_interleave(settings.replicas)

    def grows(self, lr: Tensor) -> Tensor:
        """One bool for each momentum; the same noise in every probe."""
        hyper = canonical(lr.to(self.momentum).repeat_interleave(self.settings.replicas), self.momentum)
        x = self.oracle.start(len(self.momentum))
        states = {name: kernel.init(value) for name, value in x.items()}
        generator = torch.Generator(self.momentum.device)
        generator.manual_seed(seed_of(use="stability", seed=self.settings.seed))
        half = self.settings.probe_steps // 2
        mean_squares = []
        for _ in range(2):
            for _ in range(half):
                self.stepper(x, states, self.oracle.draw(len(self.momentum), generator), hyper)
            squares = x["x"].square().reshape(-1, self.settings.replicas)
            mean_squares.append(squares.mean(dim=1).cpu())
        first, second = mean_squares
        # What is not finite has grown beyond all bounds; NaN compares false, infinite squares of finite x may not.
        return ~(second <= _GROWTH * first) | second.isinf()
