"""What a simulated population leaves behind: moments of observables at the recorded steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

_Array = np.ndarray


@dataclass(frozen=True)
class Moments:
    """Means and covariances of observables over a population of trajectories, at the recorded steps; float64.

    A trajectory has *diverged* in an arm at a step once a parameter or an observable of it is not finite, or an
    observable is beyond 1e140 in size. It is counted, and left out of that arm's moments at that step; where all of
    them have diverged, moments are infinite. Nothing here is ever NaN.

    Args:
        steps: where moments were recorded; 0 is the start.
        arms: names of the algorithms.
        observables: names of the observables.
        num_trajectories: how many were simulated in each arm.
        mean: over the trajectories that have not diverged; no expectation of the algorithm where some have.
        covariance: with divisor n − 1, within and between arms (0 if n = 1): row and column i·O + j stand for
            observable j of arm i, where O is the number of observables.
        groups: means over disjoint groups of trajectories, the same groups in every arm, for the bootstrap.
        group_sizes: trajectories in each group.
        diverged: trajectories that have diverged.
    """

    steps: Int64[_Array, " record"]
    arms: tuple[str, ...]
    observables: tuple[str, ...]
    num_trajectories: int
    mean: Float64[_Array, "arm record observable"]
    covariance: Float64[_Array, "record arm*observable arm*observable"]
    groups: Float64[_Array, "group arm record observable"]
    group_sizes: Int64[_Array, " group"]
    diverged: Int64[_Array, "arm record"]

    @property
    def variance(self) -> Float64[_Array, "arm record observable"]:
        """Variance of each observable within each arm, not below 0, where rounding may take the covariance."""
        diagonal = np.diagonal(self.covariance, axis1=1, axis2=2)
        own = np.moveaxis(diagonal.reshape(len(self.steps), len(self.arms), -1), 0, 1)
        return np.asarray(np.maximum(own, 0.0))

    @property
    def standard_error(self) -> Float64[_Array, "arm record observable"]:
        """Standard error of each mean; infinite where fewer than two trajectories are left to tell it."""
        alive = (self.num_trajectories - self.diverged)[..., None]
        return np.asarray(np.where(alive < 2, np.inf, np.sqrt(self.variance / np.maximum(alive, 1))))

    def difference(
        self, one: str, other: str
    ) -> tuple[Float64[_Array, "record observable"], Float64[_Array, "record observable"]]:
        """Mean of ``one`` minus ``other``, and its standard error, to which the covariance between arms belongs.

        Of coupled arms that error is smaller than of independent ones. Both are infinite where any trajectory of an arm
        has diverged: those that are left in one arm are not those that are left in the other.
        """
        a, b = self._place(one), self._place(other)
        with np.errstate(invalid="ignore"):
            mean = self.mean[a] - self.mean[b]
            error = np.sqrt(self.difference_variance(one, other) / self.num_trajectories)
        lost = self.diverged[[a, b]].any(axis=0)
        mean[lost], error[lost] = np.inf, np.inf
        return mean, np.full_like(error, np.inf) if self.num_trajectories < 2 else error

    def difference_variance(self, one: str, other: str) -> Float64[_Array, "record observable"]:
        """Variance over trajectories of ``one`` minus ``other``: Var a + Var b − 2 Cov(a, b), not below 0.

        Where some have diverged, each term is over those that are finite in all arms that it names.
        """
        a, b = self._place(one), self._place(other)
        size = len(self.observables)
        blocks = self.covariance.reshape(len(self.steps), len(self.arms), size, len(self.arms), size)
        cross = np.diagonal(blocks[:, a, :, b, :], axis1=1, axis2=2)
        with np.errstate(invalid="ignore"):
            variance = self.variance[a] + self.variance[b] - 2 * cross
        return np.where(np.isnan(variance), np.inf, np.maximum(variance, 0.0))

    def _place(self, arm: str) -> int:
        if arm not in self.arms:
            raise InputError(f"there is no arm {arm!r}; required is one of {', '.join(self.arms)}")
        return self.arms.index(arm)
