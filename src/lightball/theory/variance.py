"""What momentum does to the variance of SGD: of one update, which falls, and of a path of many, which does not.

Gradients are noise alone, g = σ v, so that nothing pulls back. In the canonical form m' = β m + (1 − β) g,
x' = x − η m', the update's variance falls to (1 − β)/(1 + β) of SGD's: momentum averages gradients. But each gradient
goes on to count, so that updates are correlated, and the displacement over K steps has all but the variance of SGD's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lightball.dynamics.population import Arm, Moments, Observer, simulate
from lightball.errors import InputError
from lightball.oracles import Quadratic
from lightball.stats.orders import Z95
from lightball.theory.checks import check_momenta

if TYPE_CHECKING:
    from jaxtyping import Float64

MOMENTA = (0.5, 0.9, 0.99)
_RECORDS = 30
_LR = 1.0  # of no consequence: every variance is proportional to its square
_SGD = "SGD"


@dataclass(frozen=True)
class VarianceSettings:
    """What to simulate: momenta β, ``num_steps`` steps of ``trajectories`` coupled trajectories for each.

    Raises:
        InputError: a momentum outside [0, 1) or twice the same, too few steps or trajectories.
    """

    momenta: tuple[float, ...] = MOMENTA
    num_steps: int = 10_000
    trajectories: int = 4_000
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_momenta(self.momenta)
        if self.num_steps < 2:
            raise InputError(f"num_steps is {self.num_steps}; required are at least 2")
        if self.trajectories < 100:
            raise InputError(f"trajectories is {self.trajectories}; required are at least 100 for an interval")


@dataclass(frozen=True)
class Ratio:
    """A variance of SGDM over the same of SGD; ``low`` and ``high`` are a 95 % interval of the simulation."""

    exact: float
    simulated: float
    low: float
    high: float

    @property
    def agrees(self) -> bool:
        """Whether the interval holds the closed form."""
        rounding = 1e-9 * self.exact  # of a first step, which is no estimate: (1 − β) g against g
        return self.low - rounding <= self.exact <= self.high + rounding


@dataclass(frozen=True)
class OfMomentum:
    """The ratios for one β after each number of steps: of the last update, and of the displacement until then."""

    momentum: float
    update: tuple[Ratio, ...]
    displacement: tuple[Ratio, ...]


@dataclass(frozen=True)
class Variance:
    """What was measured, after ``steps`` steps."""

    settings: VarianceSettings
    steps: tuple[int, ...]
    results: tuple[OfMomentum, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers."""

        def points(ratios: Sequence[Ratio]) -> list[dict[str, Any]]:
            return [
                {"steps": k, "exact": r.exact, "simulated": r.simulated, "ci95": [r.low, r.high]}
                for k, r in zip(self.steps, ratios, strict=True)
            ]

        return {
            "trajectories": self.settings.trajectories,
            "seed": self.settings.seed,
            "results": [
                {
                    "momentum": one.momentum,
                    "update_limit": update_limit(one.momentum),
                    "update": points(one.update),
                    "displacement": points(one.displacement),
                }
                for one in self.results
            ],
        }


def update_limit(momentum: float) -> float:
    """(1 − β)/(1 + β), the variance of an update of SGDM over one of SGD after many steps."""
    return (1 - momentum) / (1 + momentum)


def update_ratio(momentum: float, step: Sequence[int]) -> Float64[np.ndarray, " step"]:
    """Variance of the k-th update over SGD's, from m₀ = 0: (1 − β)/(1 + β) · (1 − β^{2k})."""
    return update_limit(momentum) * (1 - momentum ** (2 * np.asarray(step, dtype=np.float64)))


def displacement_ratio(momentum: float, step: Sequence[int]) -> Float64[np.ndarray, " step"]:
    """Variance of the displacement over K steps over SGD's; 1 − O(1/(K(1 − β))).

        1 − [ 2β(1 − β^K)/(1 − β) − β²(1 − β^{2K})/(1 − β²) ] / K

    Source: each gradient j displaces by −η(1 − β^{K−j}) g_j; squares summed.
    """
    beta, k = momentum, np.asarray(step, dtype=np.float64)
    lost = 2 * beta * (1 - beta**k) / (1 - beta) - beta**2 * (1 - beta ** (2 * k)) / (1 - beta**2)
    return 1 - lost / k


def run_variance(settings: VarianceSettings, observer: Observer | None = None) -> Variance:
    """Simulate SGD and SGDM on the same noise, and set the ratios of their variances beside the closed forms.

    Cost: about 30 µs a step and momentum, and 20 ns a trajectory of each.
    """
    steps = tuple(np.unique(np.geomspace(1, settings.num_steps, _RECORDS).round().astype(int)).tolist())
    oracle = Quadratic(0.0, 1.0, torch.zeros(1, dtype=torch.float64, device=settings.device))
    arms = {_SGD: Arm(_LR)} | {_name(momentum): Arm(_LR, momentum) for momentum in settings.momenta}
    moments = simulate(
        oracle,
        arms,
        settings.num_steps,
        settings.trajectories,
        {"update": lambda x, m: m["x"][:, 0].square(), "displacement": lambda x, m: x["x"][:, 0].square()},
        record_at=steps,
        seed=settings.seed,
        device=settings.device,
        observer=observer,
    )
    results = [
        OfMomentum(
            momentum,
            _ratios(moments, momentum, "update", update_ratio(momentum, steps)),
            _ratios(moments, momentum, "displacement", displacement_ratio(momentum, steps)),
        )
        for momentum in settings.momenta
    ]
    return Variance(settings, steps, tuple(results))


def _ratios(moments: Moments, momentum: float, observable: str, exact: np.ndarray) -> tuple[Ratio, ...]:
    """Mean squares over mean squares: means are known to be 0, since the start and the noise are symmetric."""
    place = moments.observables.index(observable)
    sgd, sgdm = (moments.arms.index(name) for name in (_SGD, _name(momentum)))
    below, above = moments.mean[sgd, :, place], moments.mean[sgdm, :, place]
    ratio = above / below
    size = len(moments.observables)
    covariance = moments.covariance
    i, j = size * sgd + place, size * sgdm + place
    # The delta method: a / b varies as (a − r b) / E b does.
    variance = covariance[:, j, j] - 2 * ratio * covariance[:, i, j] + ratio**2 * covariance[:, i, i]
    half = Z95 * np.sqrt(np.maximum(variance, 0) / moments.num_trajectories) / below
    columns = zip(exact.tolist(), ratio.tolist(), (ratio - half).tolist(), (ratio + half).tolist(), strict=True)
    return tuple(Ratio(*column) for column in columns)


def _name(momentum: float) -> str:
    return f"β = {momentum!r}"  # all digits: each has an arm of its own
