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
# Of the mean square in the second half of a run to that in the first: a stable one at most doubles it, by noise that
# adds up for long; 64 replicas exceed four times by chance once in ten million.
_GROWTH = 4.0


@dataclass(frozen=True)
class StabilitySettings:
    """What to simulate: for each momentum β a bisection of the learning rate, each probe a run of ``num_steps`` steps.

    Args:
        momenta: β.
        curvature: h > 0.
        num_steps: of a probe; growth slower than 4 times in half of them is not seen.
        replicas: of each probe, started at 1, with gradient noise of variance 1.
        resolution: relative width at which the bisection ends.
    """

    momenta: tuple[float, ...] = MOMENTA
    curvature: float = 1.0
    num_steps: int = 1_000
    replicas: int = 64
    resolution: float = 1e-3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_momenta(self.momenta)
        if not 0 < self.curvature < math.inf:
            raise InputError(f"curvature is {self.curvature:g}; required is a finite number > 0")
        if self.num_steps < 100:
            raise InputError(f"num_steps is {self.num_steps}; required are at least 100, for growth to show")
        if self.replicas < 16:
            raise InputError(f"replicas is {self.replicas}; required are at least 16, for growth to stand out of noise")
        if not 0 < self.resolution < 1:
            raise InputError(f"resolution is {self.resolution:g}; required is a number between 0 and 1: try 0.001")

    @property
    def blind(self) -> float:
        """How far beyond the true limit growth may be too slow to be seen; an absolute learning rate.

        At the limit the growth factor of a step rises as ηh does, whatever β: with ε = (η − limit) h the mean square
        grows by e^{2εK} in K steps.
        """
        return math.log(_GROWTH) / self.num_steps / self.curvature


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
            "num_steps": self.settings.num_steps,
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

    Nothing here knows the closed form. Cost: some 20 probes, each of ``num_steps`` steps of about 60 µs.
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
            Frontier(beta, largest_stable_lr(beta, settings.curvature), low, high, max(low - settings.blind, 0.0))
            for beta, low, high in zip(settings.momenta, stable.tolist(), growing.tolist(), strict=True)
        ),
    )


class _Probe:
    """Whether trajectories grow at given learning rates, one for each momentum; the step is traced once."""

    def __init__(self, settings: StabilitySettings) -> None:
        x0 = torch.ones(1, dtype=torch.float64, device=settings.device)
        self.oracle = Quadratic(settings.curvature, 1.0, x0)
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
        half = self.settings.num_steps // 2
        mean_squares = []
        for _ in range(2):
            for _ in range(half):
                self.stepper(x, states, self.oracle.draw(len(self.momentum), generator), hyper)
            squares = x["x"].square().reshape(-1, self.settings.replicas)
            mean_squares.append(squares.mean(dim=1).cpu())
        first, second = mean_squares
        # What is not finite has grown beyond all bounds, and compares false.
        return ~(second <= _GROWTH * first)
