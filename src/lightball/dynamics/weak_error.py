"""Weak errors: how far two algorithms are apart in what they do on average, over a grid of learning rates.

    error(η) = max over k ≤ T/η of |E h(x_k) − E h(z_k)|

for a test function h, x an algorithm and z the reference, such as SGD. Two families of processes are order-r weak
approximations of each other if this is O(η^r) for every smooth h of polynomial growth. Exact on quadratics
(:func:`exact_errors`), by coupled trajectories of any oracle (:func:`simulated_errors`).

Source: arXiv:2307.15196, §4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightball.dynamics.modes import LinearMoments
from lightball.dynamics.moments import exact_moments
from lightball.dynamics.population import Arm, Moments, Observable, Observer, simulate
from lightball.errors import InputError
from lightball.oracles.seeds import seed_of
from lightball.stats import OrderFit, fit_order, largest_error

if TYPE_CHECKING:
    from jaxtyping import Float64

    from lightball.oracles import Quadratic
    from lightball.oracles.protocol import SampledOracle

Arms = Callable[[float, int], Mapping[str, Arm]]
"""(η, number of steps) → the algorithms at this learning rate, by name."""
ExactObservable = Callable[[LinearMoments], torch.Tensor]
"""Moments of the arms → E h, ``Float64["arm record"]``."""
Errors = dict[tuple[str, str], "WeakError"]
"""By (arm, observable)."""

_NUM_RECORDS = 100


@dataclass(frozen=True)
class WeakError:
    """Errors of one algorithm in one observable, with standard errors (0 where exact), at each learning rate.

    Infinite where it or the reference diverged.
    """

    etas: tuple[float, ...]
    errors: tuple[float, ...]
    standard_errors: tuple[float, ...]

    def order(self) -> OrderFit:
        """How fast they fall; see :func:`lightball.stats.fit_order`."""
        return fit_order(self.etas, self.errors, self.standard_errors)


def first_coordinate(moments: LinearMoments) -> Float64[torch.Tensor, "arm record"]:
    """E x₁, for :func:`exact_errors`."""
    return moments.mean[..., 0]


def first_coordinate_squared(moments: LinearMoments) -> Float64[torch.Tensor, "arm record"]:
    """E x₁², for :func:`exact_errors`."""
    return moments.mean[..., 0] ** 2 + moments.covariance[..., 0, 0]


def exact_errors(
    problem: Callable[[float], Quadratic],
    arms: Arms,
    reference: str,
    etas: Sequence[float],
    horizon: float,
    observables: Mapping[str, ExactObservable],
) -> Errors:
    """Weak errors over all steps up to T = ``horizon``, without sampling, on ``problem(η)``; see `simulated_errors`.

    Cost: T/η steps of :func:`exact_moments` for each rate, all arms at once. Raises `InputError`.
    """

    def at(eta: float) -> dict[tuple[str, str], tuple[float, float]]:
        num_steps = steps_to(horizon, eta)
        named = arms(eta, num_steps)
        rates, momenta = by_arm(named)
        moments = exact_moments(problem(eta), rates, momenta, num_steps=num_steps)
        paths = {name: observable(moments) for name, observable in observables.items()}
        base = list(named).index(_known(reference, named))
        return {
            (arm, name): (_largest(path[place] - path[base]), 0.0)
            for place, arm in enumerate(named)
            if arm != reference
            for name, path in paths.items()
        }

    return _over(etas, at)


def simulated_errors(
    oracle: Callable[[float], SampledOracle],
    arms: Arms,
    reference: str,
    etas: Sequence[float],
    horizon: float,
    observables: Mapping[str, Observable],
    num_trajectories: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    observer: Observer | None = None,
) -> Errors:
    """Weak errors of trajectories of ``oracle(η)``, all arms on the same noise; over about 100 steps up to T.

    Args:
        oracle: η → oracle; noise of variance 1/η is the theorem's hardest case.
        arms: (η, number of steps) → the algorithms, by name, such as
            ``lambda eta, num_steps: {"SGD": Arm(eta), "SGDM": Arm(eta, 0.9)}``.
        reference: the arm that the others are compared with.
        etas: learning rates.
        horizon: T.
        observables: h, by name.
        num_trajectories: of each arm, at each rate.

    Cost: T/η gradients for each trajectory, arm and rate.

    Raises:
        InputError: no rates, a rate that is not in (0, T], an unknown reference, or what `simulate` refuses.
    """
    if observer:
        observer.begin("simulating", num_trajectories * sum(steps_to(horizon, eta) for eta in etas))

    def at(eta: float) -> dict[tuple[str, str], tuple[float, float]]:
        num_steps = steps_to(horizon, eta)
        moments = simulate(
            oracle(eta),
            arms(eta, num_steps),
            num_steps,
            num_trajectories,
            observables,
            record_at=records(num_steps),
            seed=seed_of(use="weak error", seed=seed, eta=float(eta)),  # rates must not share noise: fits weigh them
            device=device,
            observer=_Steps(observer, num_steps) if observer else None,
        )
        others = (arm for arm in moments.arms if arm != reference)
        return {(arm, name): error_of(moments, arm, reference, name) for arm in others for name in moments.observables}

    return _over(etas, at)


@dataclass(frozen=True)
class _Steps:
    """Passes trajectories on as steps, of which the runs of a grid have different numbers."""

    observer: Observer
    num_steps: int

    def begin(self, phase: str, work: float) -> None:
        """The grid has begun already."""

    def advance(self, work: float) -> None:
        """So many trajectories of ``num_steps`` each."""
        self.observer.advance(work * self.num_steps)


def error_of(moments: Moments, arm: str, reference: str, observable: str) -> tuple[float, float]:
    """max over the records of |E h(arm) − E h(reference)| and its standard error; infinite if a trajectory diverged."""
    one, other = (moments.arms.index(_known(name, moments.arms)) for name in (arm, reference))
    if moments.diverged[[one, other]].any():
        return math.inf, math.inf
    of = moments.groups[..., moments.observables.index(observable)]
    return largest_error(of[:, one] - of[:, other], moments.group_sizes)


def by_arm(arms: Mapping[str, Arm]) -> tuple[np.ndarray, np.ndarray]:
    """Rates and momenta (arm, step), with one step for what changes in no arm, as :func:`exact_moments` takes them."""
    rates, momenta = (
        np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in values)))
        for values in ([arm.effective_lr for arm in arms.values()], [arm.momentum for arm in arms.values()])
    )
    return rates, momenta


def steps_to(horizon: float, eta: float) -> int:
    """The number of steps k ≤ T/η."""
    if not (0 < eta <= horizon < math.inf):
        raise InputError(f"the learning rate is {eta:g} and the time {horizon:g}; required is 0 < η ≤ T < ∞")
    return math.floor(horizon / eta * (1 + 1e-12))


def records(num_steps: int) -> list[int]:
    """About 100 steps, closer together at the start, where momentum makes the largest difference."""
    return [0, *np.unique(np.geomspace(1, num_steps, _NUM_RECORDS).round().astype(int)).tolist()]


def _over(etas: Sequence[float], at: Callable[[float], dict[tuple[str, str], tuple[float, float]]]) -> Errors:
    if not len(etas):
        raise InputError("there are no learning rates: give one or more, and at least two for an order")
    points = [at(eta) for eta in etas]
    return {key: WeakError(tuple(etas), *zip(*(point[key] for point in points), strict=True)) for key in points[0]}


def _largest(difference: torch.Tensor) -> float:
    largest = float(difference.abs().max())
    return math.inf if math.isnan(largest) else largest  # where both diverged


def _known(name: str, names: Sequence[str] | Mapping[str, object]) -> str:
    if name not in names:
        raise InputError(f"there is no arm {name!r}; there are {', '.join(names)}: compare with one of them")
    return name
