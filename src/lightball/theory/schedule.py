"""Schedules of learning rate and momentum: SGD with the averaged schedule, and with the rate γ/(1 − β) of each step.

What SGD matches SGD with momentum under schedules (η_k, β_k)? The paper's is SGD with the averaged schedule η̄_k
(`rules.averaged_schedule`), which moves by as much as each gradient will have moved in the end. The naive match takes
the rate γ_k/(1 − β_k) = η_k of the moment. Exact moments on the quadratic of `theory.weak`, where the weak error is
the larger one of h(x) = x and h(x) = x²; at the larger rates coupled trajectories are simulated beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lightball.dynamics.moments import exact_moments
from lightball.dynamics.population import Arm, Observer, coordinate, square
from lightball.dynamics.weak_error import (
    Arms,
    Errors,
    WeakError,
    by_arm,
    exact_errors,
    first_coordinate,
    first_coordinate_squared,
    simulated_errors,
    steps_to,
)
from lightball.oracles import Quadratic
from lightball.rules import averaged_schedule
from lightball.rules.schedules import parse, values
from lightball.theory.as_json import finite, points_json, slope_json
from lightball.theory.checks import check_rates, check_trajectories
from lightball.theory.momenta import momenta

if TYPE_CHECKING:
    from jaxtyping import Float64

RATES = tuple(2.0**-k for k in range(7, 13))
OBSERVABLES = {"x": first_coordinate, "x²": first_coordinate_squared}
SHOWN_POINTS = 256
BESIDE_EXACT = 4  # of the largest rates are simulated too
TRAJECTORIES = 4_000


@dataclass(frozen=True)
class ScheduleSettings:
    """What to compare.

    Args:
        schedule: of the effective learning rate, as `rules.schedules.parse` takes it.
        momentum: of β, as `theory.momenta` takes it.
        etas: the largest effective learning rates of the runs.
        horizon: T; runs have T/η steps.
        trajectories: of every arm at the four largest rates, beside the exact errors; 0 for none.
    """

    schedule: str = "warmup:0.1+step:0.5,0.75:0.1"
    momentum: str = "restarts:20"
    etas: tuple[float, ...] = RATES
    horizon: float = 2.0
    trajectories: int = TRAJECTORIES
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_rates(self.etas, self.horizon, "0.0078125,0.00390625")
        check_trajectories(self.trajectories, none_allowed=True)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates, the largest first."""
        return tuple(sorted(set(self.etas), reverse=True))

    @property
    def simulated_rates(self) -> tuple[float, ...]:
        """Those that are simulated too."""
        return self.rates[:BESIDE_EXACT]


@dataclass(frozen=True)
class Match:
    """How far one SGD is from SGD with momentum: in x, in x², and in the worse of the two.

    ``simulated`` are errors in x and in x² of trajectories, at fewer rates; empty where there is no simulation.
    """

    name: str
    errors: Mapping[str, WeakError]
    simulated: Mapping[str, WeakError]

    @property
    def error(self) -> WeakError:
        """The larger error at each rate."""
        first = next(iter(self.errors.values()))
        largest = np.max([one.errors for one in self.errors.values()], axis=0)
        return WeakError(first.etas, tuple(largest.tolist()), first.standard_errors)

    @property
    def simulated_error(self) -> WeakError | None:
        """At each rate the simulated error of the observable whose exact error is larger."""
        if not self.simulated:
            return None
        etas = next(iter(self.simulated.values())).etas
        worse = [max(self.errors, key=lambda name: self.errors[name].errors[place]) for place in range(len(etas))]
        found = [self.simulated[name] for name in worse]
        return WeakError(
            etas,
            tuple(one.errors[place] for place, one in enumerate(found)),
            tuple(one.standard_errors[place] for place, one in enumerate(found)),
        )


@dataclass(frozen=True)
class Run:
    """One run step by step, for the eye: schedules, and E x² of the three algorithms at some of the steps."""

    eta: float
    lr: Float64[np.ndarray, " step"]
    averaged: Float64[np.ndarray, " step"]
    momentum: Float64[np.ndarray, " step"]
    recorded: tuple[int, ...]
    squares: Mapping[str, Float64[np.ndarray, " record"]]


@dataclass(frozen=True)
class Schedules:
    """The result of :func:`run_schedule`; ``constant`` is what the order is where neither rate nor momentum changes."""

    settings: ScheduleSettings
    averaged: Match
    naive: Match
    constant: Match
    run: Run

    @property
    def ratios(self) -> tuple[float, ...]:
        """Error of the averaged schedule over that of the naive match, at each rate.

        1 where both are 0, as they are without momentum; infinite if the averaged schedule diverged.
        """
        pairs = zip(self.averaged.error.errors, self.naive.error.errors, strict=True)
        return tuple(_ratio(one, other) for one, other in pairs)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; null for what is not known or infinite."""
        return {
            "schedule": self.settings.schedule,
            "momentum": self.settings.momentum,
            "horizon": self.settings.horizon,
            "method": "exact",
            "trajectories": self.settings.trajectories,
            "seed": self.settings.seed,
            "ratios": list(map(finite, self.ratios)),
            "results": [_match(match) for match in (self.averaged, self.naive, self.constant)],
        }


def run_schedule(settings: ScheduleSettings, observer: Observer | None = None) -> Schedules:
    """Compute the errors. Cost: some 50 µs for each step of the exact moments, about 1 s by default, and twice that
    for the simulation.

    Raises:
        InputError: a schedule or momentum that is not understood.
    """

    def arms(eta: float, num_steps: int) -> Mapping[str, Arm]:
        lr = eta * values(parse(settings.schedule, num_steps), num_steps)
        beta = momenta(settings.momentum, num_steps)
        return {"SGDM": Arm(lr, beta), "averaged": Arm(averaged_schedule(lr, beta)), "naive": Arm(lr)}

    def unchanging(eta: float, num_steps: int) -> Mapping[str, Arm]:
        beta = float(momenta(settings.momentum, num_steps).mean())
        return {"SGDM": Arm(eta, beta), "constant": Arm(eta)}

    changing = exact_errors(_problem, arms, "SGDM", settings.rates, settings.horizon, OBSERVABLES)
    constant = exact_errors(_problem, unchanging, "SGDM", settings.rates, settings.horizon, OBSERVABLES)
    simulated: Errors = {}
    if settings.trajectories:
        simulated = simulated_errors(
            lambda eta: _problem(eta, settings.device),
            arms,
            "SGDM",
            settings.simulated_rates,
            settings.horizon,
            {"x": coordinate(0), "x²": square(0)},
            settings.trajectories,
            seed=settings.seed,
            device=settings.device,
            observer=observer,
        )
    return Schedules(
        settings,
        _of("averaged", changing, simulated),
        _of("naive", changing, simulated),
        _of("constant", constant, {}),
        _shown(settings.rates[0], arms, settings.horizon),
    )


def _problem(eta: float, device: str = "cpu") -> Quadratic:
    return Quadratic(1.0, 1 / eta, torch.ones(1, dtype=torch.float64, device=device))


def _ratio(one: float, other: float) -> float:
    if one == other == 0:
        return 1.0
    return one / other if math.isfinite(one) and other > 0 else math.inf


def _of(name: str, exact: Errors, simulated: Errors) -> Match:
    def by_observable(errors: Errors) -> dict[str, WeakError]:
        return {observable: errors[name, observable] for observable in OBSERVABLES if errors}

    return Match(name, by_observable(exact), by_observable(simulated))


def _shown(eta: float, arms: Arms, horizon: float) -> Run:
    num_steps = steps_to(horizon, eta)
    named = arms(eta, num_steps)
    lr, beta = by_arm(named)
    steps = np.unique(np.linspace(0, num_steps, min(num_steps, SHOWN_POINTS) + 1).round().astype(int))
    moments = exact_moments(_problem(eta), lr, beta, num_steps=num_steps, record_at=steps.tolist())
    squares = dict(zip(named, first_coordinate_squared(moments).numpy(), strict=True))
    return Run(eta, lr[0], lr[1], beta[0], tuple(steps.tolist()), squares)


def _match(match: Match) -> dict[str, Any]:
    found = match.error.order()
    return {
        "match": match.name,
        **slope_json(found.local),
        "fit": slope_json(found.fit),
        "points": points_json(match.error, found),
        "observables": {name: list(map(finite, one.errors)) for name, one in match.errors.items()},
        "simulated": {name: points_json(one, one.order()) for name, one in match.simulated.items()} or None,
    }
