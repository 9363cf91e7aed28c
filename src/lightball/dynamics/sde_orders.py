"""How fast SGD, SGDM and SVAG approach an SDE as the learning rate falls: weak errors over a grid, and their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from lightball.dynamics.population import Arm, Observable, Observer, simulate
from lightball.dynamics.sde import coarse_arm, first_order_arm, momentum_of, underdamped_arm
from lightball.dynamics.weak_error import WeakError, records, steps_to
from lightball.errors import InputError
from lightball.oracles import Diffusion, Svag, seed_of
from lightball.stats import largest_error

if TYPE_CHECKING:
    import torch

    from lightball.oracles import CovarianceOracle, SampledOracle

Equation = Literal["first order", "underdamped"]
_GroupMeans = tuple[dict[str, np.ndarray], dict[Equation, np.ndarray], np.ndarray]
"""Means of the algorithms and of the equations, (group, record, observable), and the sizes of the groups."""


@dataclass(frozen=True)
class Algorithm:
    """SGDM, or SGD at momentum 0, under SVAG(ℓ) if ``ell`` > 1.

    Args:
        momentum: β at every learning rate, unless ``damping`` is given.
        damping: c of 1 − β = cη, the scaling of the underdamped equation.
        ell: SVAG's ℓ: learning rate η/ℓ, ℓ times as many steps, the same β.
    """

    momentum: float = 0.0
    damping: float | None = None
    ell: int = 1

    def momentum_at(self, effective_lr: float) -> float:
        return self.momentum if self.damping is None else momentum_of(effective_lr, self.damping)


def errors_against_sde(
    oracle_at: Callable[[float], CovarianceOracle],
    algorithms: Mapping[str, Algorithm],
    etas: Sequence[float],
    horizon: float,
    observables: Mapping[str, Observable],
    damping: float | None = None,
    substeps: int = 16,
    num_trajectories: int = 4096,
    own_noise: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    observer: Observer | None = None,
) -> dict[tuple[str, Equation, str], WeakError]:
    """max over k ≤ T/η of |E h(x_k) − E h(X_{ηk})| over a grid of η, by (algorithm, equation, observable).

    :meth:`WeakError.order` says how fast they fall. Infinite where an algorithm or an equation diverged.

    Args:
        oracle_at: η → oracle; noise of variance 1/η is the theorem's hardest case, σ = η^{-1/2}.
        algorithms: by name.
        etas: the learning rates η.
        horizon: T.
        observables: h, by name.
        damping: c of the underdamped equation, which is left out if None.
        substeps: steps of the SDE in a step of SGD; it has the weak error O(η/substeps) of its own, so that an error of
            SGD is measured as 1 − 1/substeps of itself, whatever η.
        num_trajectories: of each arm.
        own_noise: whether algorithms draw the oracle's own noise, independently of the SDE. If not, Gaussian noise of
            the same covariance from the path that drives the SDE: exact for Gaussian oracles, and far less variance.

    Cost: ``substeps`` gradients for each step of SGD and arm; with ``own_noise``, for the equations only.

    Raises:
        InputError: ``substeps`` is no multiple of an ``ell``, or an argument of the simulation cannot be used.
    """
    gaps: dict[tuple[str, Equation, str], list[tuple[float, float]]] = {}
    for effective_lr in etas:
        setting = _Setting(
            observables,
            effective_lr,
            steps_to(horizon, effective_lr),
            damping,
            substeps,
            num_trajectories,
            seed,
            device,
            observer,
        )
        simulated = setting.apart if own_noise else setting.on_one_path
        means, limits, sizes = simulated(oracle_at(effective_lr), algorithms)
        for name, equation, (i, observable) in product(means, limits, enumerate(observables)):
            with np.errstate(invalid="ignore"):  # both diverged
                gap = means[name][..., i] - limits[equation][..., i]
            gaps.setdefault((name, equation, observable), []).append(largest_error(gap, sizes))
    return {key: WeakError(tuple(etas), *zip(*of_key, strict=True)) for key, of_key in gaps.items()}


@dataclass(frozen=True)
class _Setting:
    """What is simulated at one learning rate."""

    observables: Mapping[str, Observable]
    effective_lr: float
    num_steps: int
    damping: float | None
    substeps: int
    num_trajectories: int
    seed: int
    device: torch.device | str
    observer: Observer | None

    def on_one_path(self, oracle: CovarianceOracle, algorithms: Mapping[str, Algorithm]) -> _GroupMeans:
        """All driven by the Brownian path of the SDE, with Gaussian noise; SVAG's step is made of n/ℓ fine ones."""
        arms: dict[str, Arm] = {}
        equations = self._equations()
        for name, one in algorithms.items():
            if self.substeps % one.ell:
                raise InputError(
                    f"substeps is {self.substeps}; required is a multiple of every ell, but {name!r} has ell {one.ell}"
                )
            each = self.substeps // one.ell
            arms[name] = coarse_arm(
                self.effective_lr / one.ell, one.momentum_at(self.effective_lr), self.num_steps * one.ell, each
            )
        together: dict[str, Arm] = {f"algorithm {name}": arm for name, arm in arms.items()}
        together.update({f"equation {name}": arm for name, arm in equations.items()})
        groups, sizes = self._simulate(Diffusion(oracle, self.substeps), together, self.substeps, "path")
        limits = dict(zip(equations, groups[len(arms) :], strict=True))
        return dict(zip(arms, groups[: len(arms)], strict=True)), limits, sizes

    def apart(self, oracle: CovarianceOracle, algorithms: Mapping[str, Algorithm]) -> _GroupMeans:
        """Algorithms on the oracle's own noise, each drawn for itself; group by group beside the SDE's, as many."""
        means = {}
        for name, one in algorithms.items():
            its_own: SampledOracle = oracle if one.ell == 1 else Svag(oracle, one.ell)
            arms = {name: Arm(self.effective_lr / one.ell, one.momentum_at(self.effective_lr))}
            (means[name],), _ = self._simulate(its_own, arms, one.ell, name)
        equations = self._equations()
        together: dict[str, Arm] = {str(name): arm for name, arm in equations.items()}
        groups, sizes = self._simulate(Diffusion(oracle, self.substeps), together, self.substeps, "path")
        return means, dict(zip(equations, groups, strict=True)), sizes

    def _equations(self) -> dict[Equation, Arm]:
        arms: dict[Equation, Arm] = {"first order": first_order_arm(self.effective_lr, self.substeps)}
        if self.damping is not None:
            arms["underdamped"] = underdamped_arm(self.effective_lr, self.damping, self.substeps)
        return arms

    def _simulate(
        self, oracle: SampledOracle, arms: Mapping[str, Arm], each: int, use: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means (arm, group, record, observable), infinite where an arm diverged, and the sizes of the groups.

        All steps of SGD, in ``each`` steps of the oracle, are recorded at the same times for every algorithm.
        """
        moments = simulate(
            oracle,
            arms,
            self.num_steps * each,
            self.num_trajectories,
            self.observables,
            record_at=[k * each for k in records(self.num_steps)],
            # Rates must not share noise: fits take their errors as independent.
            seed=seed_of(use=use, seed=self.seed, eta=float(self.effective_lr)),
            device=self.device,
            observer=self.observer,
        )
        means = np.moveaxis(moments.groups, 1, 0).copy()
        means[moments.diverged.any(axis=1)] = np.inf
        return means, moments.group_sizes
