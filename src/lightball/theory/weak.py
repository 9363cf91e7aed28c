"""How fast SGD with momentum becomes SGD: weak errors where 1 − β = Θ(η^α), beside the theorem's order (1 − α)/2.

The setting of arXiv:2307.15196, §4 in one dimension: noise of variance 1/η, so that it counts as much as the gradient
over times T = O(1), x₀ = 1, 1 − β = ½ η^α (β = 0.9 for α = 0). Exact on the quadratic, with a simulation beside it at
every rate; simulated on other losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightball.dynamics.population import Arm, Observer, coordinate, square
from lightball.dynamics.weak_error import (
    Errors,
    WeakError,
    exact_errors,
    first_coordinate,
    first_coordinate_squared,
    simulated_errors,
)
from lightball.errors import InputError
from lightball.oracles import FunctionOracle, Noise, Quadratic, SampledOracle, draw_noise
from lightball.oracles.noise import check_noise
from lightball.stats import Slope
from lightball.theory.as_json import points_json, slope_json
from lightball.theory.checks import check_rates, check_trajectories

Loss = Literal["quadratic", "log-cosh", "cosine"]

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
EXACT_RATES = tuple(2.0**-k for k in range(4, 13))
SIMULATED_RATES = tuple(2.0**-k for k in range(6, 11))
TRAJECTORIES = {"quadratic": 1_000, "log-cosh": 20_000, "cosine": 20_000}


@dataclass(frozen=True)
class WeakSettings:
    """What to measure. ``etas`` and ``trajectories`` None choose what suits the loss, in seconds.

    Args:
        alphas: of 1 − β = ½ η^α; at 0 β = 0.9.
        loss: ½x², log cosh x or 1 − cos x. The last two bend away from the quadratic, and the last is not convex.
        noise: shape of the gradient noise, whose variance is 1/η. Exact errors do not depend on it.
        etas: the learning rates.
        trajectories: of every simulated arm; 0 for exact errors alone.
        horizon: T; runs have T/η steps.
    """

    alphas: tuple[float, ...] = ALPHAS
    loss: Loss = "quadratic"
    noise: Noise = "gaussian"
    etas: tuple[float, ...] | None = None
    trajectories: int | None = None
    horizon: float = 2.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for alpha in self.alphas:
            if not (math.isfinite(alpha) and alpha >= 0):
                raise InputError(f"alpha is {alpha:g}; required is a finite number ≥ 0, since 1 − β = ½ η^α: try 0.5")
        if self.loss not in get_args(Loss):
            raise InputError(f"loss is {self.loss!r}; required is one of {', '.join(get_args(Loss))}")
        check_noise(self.noise)
        check_rates(self.rates, self.horizon, "0.0625,0.03125,0.015625")
        check_trajectories(self.num_trajectories, none_allowed=True)
        if self.trajectories == 0 and not self.is_exact:
            raise InputError(f"trajectories is 0, but only the quadratic has exact errors: simulate {self.loss}")

    @property
    def is_exact(self) -> bool:
        """Whether errors are computed, not simulated."""
        return self.loss == "quadratic"

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates of the result, the largest first."""
        chosen = self.etas if self.etas is not None else (EXACT_RATES if self.is_exact else SIMULATED_RATES)
        return tuple(sorted(set(chosen), reverse=True))

    @property
    def num_trajectories(self) -> int:
        """Of every simulated arm."""
        return TRAJECTORIES[self.loss] if self.trajectories is None else self.trajectories


@dataclass(frozen=True)
class Alpha:
    """What was found at one α: errors of h(x) = x and of h(x) = x², exact where there are exact ones.

    ``simulated`` are the errors of h(x) = x by simulation, which stand beside the exact ones, or are the errors.
    """

    alpha: float
    error: WeakError
    of_square: WeakError
    simulated: WeakError | None

    @property
    def theorem(self) -> float | None:
        """The proven order (1 − α)/2; None beyond α = 1, of which the theorem does not speak."""
        return (1 - self.alpha) / 2 if self.alpha <= 1 else None


@dataclass(frozen=True)
class Weak:
    """The result of :func:`run_weak`."""

    settings: WeakSettings
    results: tuple[Alpha, ...]

    def order(self, of: WeakError) -> Slope | None:
        """The order that is reported: the local one of exact errors, that of the fit of simulated ones."""
        found = of.order()
        return found.local if self.settings.is_exact else found.fit

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; null for what is not known or infinite."""
        given = self.settings
        return {
            "loss": given.loss,
            "noise": given.noise,
            "method": "exact" if given.is_exact else "simulated",
            "observable": "x",
            "horizon": given.horizon,
            "trajectories": given.num_trajectories,
            "seed": given.seed,
            "results": [self._alpha(result) for result in self.results],
        }

    def _alpha(self, result: Alpha) -> dict[str, Any]:
        found = result.error.order()
        beside = result.simulated if self.settings.is_exact else None
        return {
            "alpha": result.alpha,
            **slope_json(self.order(result.error)),
            "theorem": result.theorem,
            "points": points_json(result.error, found),
            "fit": slope_json(found.fit),
            "local": slope_json(found.local),
            "limit": found.limit,
            "square": slope_json(self.order(result.of_square)),
            "simulated": points_json(beside, beside.order()) if beside else None,
        }


def run_weak(settings: WeakSettings, observer: Observer | None = None) -> Weak:
    """Measure the errors. Cost: about 1 s for the default exact ones, some 5 s to simulate beside them or other losses.

    Raises:
        InputError: α so large that β rounds to 1.
    """
    names = {alpha: repr(alpha) for alpha in settings.alphas}  # all digits: each has an arm of its own

    def arms(eta: float, num_steps: int) -> Mapping[str, Arm]:
        return {"sgd": Arm(eta), **{name: Arm(eta, momentum_at(alpha, eta)) for alpha, name in names.items()}}

    exact: Errors = {}
    if settings.is_exact:
        of_moments = {"x": first_coordinate, "x²": first_coordinate_squared}
        exact = exact_errors(
            lambda eta: _quadratic(settings, eta), arms, "sgd", settings.rates, settings.horizon, of_moments
        )
    simulated: Errors = {}
    if settings.num_trajectories:
        simulated = simulated_errors(
            lambda eta: oracle_at(settings, eta),
            arms,
            "sgd",
            settings.rates,
            settings.horizon,
            {"x": coordinate(0), "x²": square(0)},
            settings.num_trajectories,
            seed=settings.seed,
            device=settings.device,
            observer=observer,
        )
    errors = exact or simulated
    return Weak(
        settings,
        tuple(
            Alpha(alpha, errors[name, "x"], errors[name, "x²"], simulated.get((name, "x")))
            for alpha, name in names.items()
        ),
    )


def momentum_at(alpha: float, eta: float) -> float:
    """β with 1 − β = ½ η^α, or 0.9 at α = 0. Raises `InputError` where it is no momentum."""
    momentum = 0.9 if alpha == 0 else 1 - 0.5 * eta**alpha
    if not 0 <= momentum < 1:
        raise InputError(
            f"alpha {alpha:g} makes the momentum 1 − ½ η^α = {momentum:g} at η = {eta:g}; required is 0 ≤ β < 1: "
            "choose a smaller alpha or other rates"
        )
    return momentum


def oracle_at(settings: WeakSettings, eta: float) -> SampledOracle:
    """The loss with noise of variance 1/η, from x₀ = 1."""
    if settings.loss == "quadratic":
        return _quadratic(settings, eta)
    loss = {"log-cosh": _log_cosh, "cosine": _cosine}[settings.loss]

    def noise(replicas: int, generator: torch.Generator) -> Tensor:
        return draw_noise(settings.noise, (replicas, 1), generator) / math.sqrt(eta)

    return FunctionOracle(loss, noise, _start(settings))


def _quadratic(settings: WeakSettings, eta: float) -> Quadratic:
    return Quadratic(1.0, 1 / eta, _start(settings), noise=settings.noise)


def _start(settings: WeakSettings) -> Tensor:
    return torch.ones(1, dtype=torch.float64, device=settings.device)


def _log_cosh(x: Tensor) -> Tensor:
    distance: Tensor = x[:, 0].abs()
    value: Tensor = distance + softplus(-2 * distance) - math.log(2)
    return value


def _cosine(x: Tensor) -> Tensor:
    value: Tensor = 1 - torch.cos(x[:, 0])
    return value
