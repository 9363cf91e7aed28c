"""The SDEs of SGD and SGDM, held against both: who approaches which as the learning rate falls.

On ½x² from x₀ = 1 with Gaussian noise of variance 1/η, so that the first-order SDE is the same at every η
(arXiv:2307.15196, §4): SGD, SVAG and SGDM with fixed β approach it, SGDM with 1 − β = cη the underdamped one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lightball.dynamics.population import Observer, coordinate
from lightball.dynamics.sde_orders import Algorithm, Equation, errors_against_sde
from lightball.dynamics.weak_error import WeakError
from lightball.errors import InputError
from lightball.oracles import Quadratic
from lightball.stats import Slope
from lightball.theory.as_json import points_json, slope_json
from lightball.theory.checks import check_trajectories

ETAS = tuple(2.0**-k for k in (4, 5, 6, 7))
ELL = 4


@dataclass(frozen=True)
class SdeSettings:
    """What to measure.

    Args:
        etas: learning rates.
        damping: c of 1 − β = cη, at which SGDM follows the underdamped equation.
        momentum: β of SGDM with a fixed one.
        horizon: T.
        substeps: steps of the SDE in one of SGD; it is off by O(η/substeps) itself.
        trajectories: of every algorithm and equation, all on the same Brownian paths.
    """

    etas: tuple[float, ...] = ETAS
    damping: float = 2.0
    momentum: float = 0.9
    horizon: float = 1.0
    substeps: int = 16
    trajectories: int = 2_000
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if len(set(self.etas)) < 2:
            raise InputError("there are fewer than two learning rates; an order needs two or more: try 0.1,0.05,0.025")
        check_trajectories(self.trajectories, none_allowed=False)

    @property
    def algorithms(self) -> dict[str, Algorithm]:
        return {
            "SGD": Algorithm(),
            f"SGDM, β = {self.momentum:g}": Algorithm(self.momentum),
            f"SVAG({ELL})": Algorithm(ell=ELL),
            f"SGDM, β = 1 − {self.damping:g}η": Algorithm(damping=self.damping),
        }


@dataclass(frozen=True)
class SdePair:
    """An algorithm against an equation: the weak errors of x, and the order that they should have.

    0 where it does not approach it. At a fixed β the order is a bound, the theorem's (1 − α)/2 for α = 0: it rises to 1
    as the rates fall.
    """

    algorithm: str
    equation: Equation
    expected: float
    is_bound: bool
    error: WeakError

    @property
    def order(self) -> Slope | None:
        """Between the two smallest learning rates whose errors are clear of noise."""
        return self.error.order().local


@dataclass(frozen=True)
class SdeResult:
    """The result of :func:`run_sde`."""

    settings: SdeSettings
    pairs: tuple[SdePair, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; null for what is not known or infinite."""
        return {
            "damping": self.settings.damping,
            "momentum": self.settings.momentum,
            "horizon": self.settings.horizon,
            "trajectories": self.settings.trajectories,
            "seed": self.settings.seed,
            "pairs": [_pair_json(pair) for pair in self.pairs],
        }


def run_sde(settings: SdeSettings, observer: Observer | None = None) -> SdeResult:
    """Measure the errors. Cost: six arms of ``substeps`` T/η steps for each rate, some seconds.

    Raises:
        InputError: c times a rate is above 1, or a rate is above T.
    """
    start = torch.ones(1, dtype=torch.float64, device=settings.device)
    errors = errors_against_sde(
        lambda eta: Quadratic(1.0, 1 / eta, start),
        settings.algorithms,
        sorted(set(settings.etas), reverse=True),
        settings.horizon,
        {"x": coordinate(0)},
        damping=settings.damping,
        substeps=settings.substeps,
        num_trajectories=settings.trajectories,
        seed=settings.seed,
        device=settings.device,
        observer=observer,
    )
    pairs = [_pair(name, settings.algorithms[name], equation, error) for (name, equation, _), error in errors.items()]
    return SdeResult(settings, tuple(pair for pair in pairs if pair))


def _pair(name: str, algorithm: Algorithm, equation: Equation, error: WeakError) -> SdePair | None:
    if algorithm.momentum:
        # A fixed β is 1 − cη at one learning rate: its error against the underdamped equation has no order.
        return SdePair(name, equation, 0.5, True, error) if equation == "first order" else None
    own: Equation = "first order" if algorithm.damping is None else "underdamped"
    return SdePair(name, equation, float(equation == own), False, error)


def _pair_json(pair: SdePair) -> dict[str, Any]:
    return {
        "algorithm": pair.algorithm,
        "equation": pair.equation,
        "expected": pair.expected,
        "is_bound": pair.is_bound,
        **slope_json(pair.order),
        "points": points_json(pair.error, pair.error.order()),
    }
