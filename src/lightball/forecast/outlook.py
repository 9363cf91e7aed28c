"""All that a forecast rests on, for many cases at once: parts of the value of momentum, and what tells their limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lightball.forecast.along import Along, compressed, masses_of
from lightball.forecast.local import beyond_tangent, flow_change, mean_change
from lightball.forecast.noise import excess

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from lightball.forecast.cases import Cases
    from lightball.probe import Probe

_QUADRATIC = 0.02  # a quadratic that follows the path to this share of its descent is used: it is exact in η


@dataclass(frozen=True)
class Outlook:
    """Expected losses after the recorded steps, and what stands behind them, for each case.

    Args:
        sgd, sgdm: expected losses.
        mean_sgd, mean_sgdm: without noise.
        excess_sgd, excess_sgdm: by how much noise raises them, for each vector of the noise measure.
        masses: of each vector of the noise measure, as a multiple of their mean.
        second_order: |½τ²(g − q)ᵀH(g − q)| at the end: what of the lag is not of first order, 0 for the quadratic.
        sharpest: the largest curvature on the way.
        descended: by how much gradient flow lowers the loss on the way.
        growth: by how much noise grows, as a share of itself, for a unit by which it raises the loss.
        independent: by how much noise of independent batches would raise SGD's loss at the end; without replacement
            that is more than it does.
        beyond: whether the way leads beyond the path that was measured.
    """

    mean_sgd: Float64[np.ndarray, "record case"]
    mean_sgdm: Float64[np.ndarray, "record case"]
    excess_sgd: Float64[np.ndarray, "record case vector"]
    excess_sgdm: Float64[np.ndarray, "record case vector"]
    masses: Float64[np.ndarray, "case vector"]
    second_order: Float64[np.ndarray, "case"]
    sharpest: Float64[np.ndarray, "case"]
    descended: Float64[np.ndarray, "case"]
    growth: Float64[np.ndarray, "case"]
    independent: Float64[np.ndarray, "case"]
    beyond: Bool[np.ndarray, "case"]

    @property
    def sgd(self) -> Float64[np.ndarray, "record case"]:
        """Expected loss of SGD."""
        return np.asarray(self.mean_sgd + self.excess_sgd.mean(axis=2))

    @property
    def sgdm(self) -> Float64[np.ndarray, "record case"]:
        """Expected loss of SGDM."""
        return np.asarray(self.mean_sgdm + self.excess_sgdm.mean(axis=2))


def outlook(probe: Probe, cases: Cases, warm: bool, record: tuple[int, ...], most_nodes: int | None = None) -> Outlook:
    """What the probe, and its path where it has one, say of these cases.

    ``most_nodes`` takes the noise measures with so many nodes each, without their spread over vectors: faster.
    """
    if not probe.path:
        return _local(probe, cases, warm, record, most_nodes)
    along = Along(probe.path, warm, most_nodes)
    losses = {}
    for momentum in (0.0, cases.momentum):
        losses[momentum] = _mean_along(along, cases, momentum, record)
    missed = np.zeros_like(losses[0.0]) if warm else beyond_tangent(probe, cases, record)
    if cases.momentum:
        losses[cases.momentum] = losses[cases.momentum] + missed
    horizon = np.minimum(cases.horizon, along.horizon)
    quadratic = np.array([_is_quadratic(probe, along, time) for time in horizon])
    if quadratic.any():
        for momentum, loss in losses.items():
            exact = probe.path[0].loss + mean_change(probe, cases, momentum, warm, record)
            losses[momentum] = np.where(quadratic, exact, loss)
    excess_sgd = along.excess(cases, 0.0, record)
    second = 0.5 * cases.memory**2 * np.abs(along.lag_curvature(horizon))
    return Outlook(
        mean_sgd=losses[0.0],
        mean_sgdm=losses[cases.momentum],
        excess_sgd=excess_sgd,
        excess_sgdm=along.excess(cases, cases.momentum, record),
        masses=along.masses(horizon),
        second_order=np.where(quadratic, 0.0, np.maximum(second, np.abs(missed[-1]))),
        sharpest=np.maximum(along.sharpest(horizon), probe.sharpness.value),
        descended=probe.path[0].loss - along.loss(horizon),
        growth=along.growth(horizon),
        independent=_last(along.excess(_independent(cases), 0.0, record) if cases.shuffled else excess_sgd),
        beyond=cases.horizon > along.horizon * (1 + 1e-9),
    )


def _local(probe: Probe, cases: Cases, warm: bool, record: tuple[int, ...], most_nodes: int | None) -> Outlook:
    same = np.ones((cases.num_steps, len(cases.batch_size)))
    none = np.zeros(len(cases.batch_size))
    noise = compressed(probe.noise, most_nodes)
    excess_sgd = excess(cases, noise, 0.0, same, record)
    return Outlook(
        mean_sgd=probe.loss + mean_change(probe, cases, 0.0, warm, record),
        mean_sgdm=probe.loss + mean_change(probe, cases, cases.momentum, warm, record),
        excess_sgd=excess_sgd,
        excess_sgdm=excess(cases, noise, cases.momentum, same, record),
        masses=np.tile(masses_of(noise), (len(none), 1)),
        second_order=none,
        sharpest=np.full_like(none, probe.sharpness.value),
        descended=np.array([-flow_change(probe, time) for time in cases.horizon]),
        growth=none,
        independent=_last(excess(_independent(cases), noise, 0.0, same, record) if cases.shuffled else excess_sgd),
        beyond=none.astype(bool),
    )


def _independent(cases: Cases) -> Cases:
    return replace(cases, shuffled=None)


def _last(excess: Float64[np.ndarray, "record case vector"]) -> Float64[np.ndarray, "case"]:
    return np.asarray(excess[-1].mean(axis=1))


def _mean_along(
    along: Along, cases: Cases, momentum: float, record: tuple[int, ...]
) -> Float64[np.ndarray, "record case"]:
    steps = np.array(record)[:, None]
    time = np.minimum(steps * cases.effective_lr, along.horizon)
    loss = along.loss(time) - 0.5 * cases.effective_lr * along.discretisation(time)
    if momentum == 0:
        return np.asarray(loss)
    memory = np.stack([cases.memory_after(step) for step in record])
    result: np.ndarray = loss + memory * along.lag(time) + 0.5 * memory**2 * along.lag_curvature(time)
    return result


def _is_quadratic(probe: Probe, along: Along, time: float) -> bool:
    """Whether the quadratic at the present weights descends as the path does, at the end and half way."""
    times = np.array([time / 2, time])
    descents = along.points[0].loss - along.loss(times)
    misses = descents + [flow_change(probe, float(t)) for t in times]
    return bool((np.abs(misses) <= _QUADRATIC * np.abs(descents)).all())
