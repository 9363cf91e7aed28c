"""Moments of many trajectories, a chunk at a time: memory does not grow with how many there are.

Chunks are joined by the formula of Chan, Golub and LeVeque (1979) in float64, in their order, so that the result does
not depend on which of them was finished first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightball.dynamics.population.recorded import Moments

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

_Array = np.ndarray

# Beyond it a trajectory counts as diverged: squares of sums over a chunk must not overflow.
LARGEST = 1e140


class Accumulator:
    """Takes the values of observables, chunk by chunk and record by record; gives :class:`Moments` at the end.

    Sums of pairs of arms run over the trajectories that are finite in both. Memory: records × (arms × observables)²
    and groups × records × arms × observables float64 numbers.
    """

    def __init__(self, num_records: int, num_arms: int, num_observables: int, num_groups: int) -> None:
        shape = (num_records, num_arms, num_observables)
        self.count = np.zeros((num_records, num_arms, num_arms))
        # mean[r, a, i, b]: observable i of arm a over what is finite in a and b
        self.mean = np.zeros((*shape, num_arms))
        self.scatter = np.zeros((*shape, num_arms, num_observables))
        self.group_sums = np.zeros((num_groups, *shape))
        self.group_counts = np.zeros((num_groups, num_records, num_arms))

    def add(
        self,
        record: int,
        values: Float64[_Array, "replica arm observable"],
        finite: Bool[_Array, "replica arm"],
        first: int = 0,
    ) -> None:
        """Values of a chunk of trajectories, the first of which is number ``first`` of the population.

        Trajectory i belongs to group i modulo the number of groups.
        """
        finite = finite & (np.abs(values) <= LARGEST).all(axis=-1)
        weight = finite.astype(np.float64)
        values = np.where(finite[..., None], values, 0.0)
        self._add_groups(record, values, weight, first)
        count = weight.T @ weight
        shift = values.sum(axis=0) / np.maximum(weight.sum(axis=0), 1)[:, None]
        centred = (values - shift) * weight[..., None]
        flat = centred.reshape(len(centred), -1)
        sums = (flat.T @ weight).reshape(self.mean.shape[1:])
        scatter = (flat.T @ flat).reshape(self.scatter.shape[1:])
        of_pairs = np.maximum(count, 1)
        scatter -= np.einsum("aib,bja,ab->aibj", sums, sums, 1 / of_pairs)
        self._join(record, count, shift[:, :, None] + sums / of_pairs[:, None, :], scatter)

    def merge(self, other: Accumulator) -> None:
        """Take over what another accumulator has seen."""
        for record in range(len(self.count)):
            self._join(record, other.count[record], other.mean[record], other.scatter[record])
        self.group_sums += other.group_sums
        self.group_counts += other.group_counts

    def moments(
        self,
        steps: Int64[_Array, " record"],
        arms: tuple[str, ...],
        observables: tuple[str, ...],
        num_trajectories: int,
    ) -> Moments:
        """What was seen; every record must have been given each of the ``num_trajectories``."""
        number = np.arange(len(arms))
        alive = self.count[:, number, number].T
        size = len(arms) * len(observables)
        dead_pairs = (self.count == 0)[:, :, None, :, None]
        divisor = np.maximum(self.count - 1, 1)[:, :, None, :, None]
        counts = self.group_counts.swapaxes(1, 2)[..., None]
        group_means = self.group_sums.swapaxes(1, 2) / np.maximum(counts, 1)
        num_groups = len(self.group_sums)
        return Moments(
            steps=steps,
            arms=arms,
            observables=observables,
            num_trajectories=num_trajectories,
            mean=np.where(alive[..., None] > 0, self.mean[:, number, :, number], np.inf),
            covariance=np.where(dead_pairs, np.inf, self.scatter / divisor).reshape(len(steps), size, size),
            groups=np.where(counts > 0, group_means, np.inf),
            group_sizes=np.bincount(np.arange(num_trajectories) % num_groups, minlength=num_groups),
            diverged=(num_trajectories - alive).astype(np.int64),
        )

    def _add_groups(self, record: int, values: _Array, weight: _Array, first: int) -> None:
        group = (first + np.arange(len(values))) % len(self.group_sums)
        for arm in range(values.shape[1]):
            self.group_counts[:, record, arm] += np.bincount(group, weight[:, arm], len(self.group_sums))
            for place in range(values.shape[2]):
                sums = np.bincount(group, values[:, arm, place], len(self.group_sums))
                self.group_sums[:, record, arm, place] += sums

    def _join(self, record: int, count: _Array, mean: _Array, scatter: _Array) -> None:
        """Chan's formula for each pair of arms."""
        before = self.count[record]
        total = np.maximum(before + count, 1)
        delta = mean - self.mean[record]
        between = np.einsum("aib,bja,ab->aibj", delta, delta, before * count / total)
        self.scatter[record] += scatter + between
        self.mean[record] += delta * (count / total)[:, None, :]
        self.count[record] = before + count
