"""The loss along the path ahead, for any rate, momentum and batch size at once; see :mod:`lightball.probe.path`.

    E L_SGD(x_K)  ≈ L(x(T)) − (η/2) g·q + excess_SGD                               T = ηK
    E L_SGDM(x_K) ≈ E L_SGD without noise + τ g·(g − q) + ½ τ² (g − q)ᵀH(g − q) + excess_SGDM

Excesses come from the noise as measured around x(T), whose trace follows the path before. To the second order in τ, of
which the part that comes from the path's bend is left out, and to the first in η. What the quadratic at the start says
beyond these orders is added, see :func:`lightball.forecast.local.beyond_tangent`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from lightball.forecast.noise import excess

if TYPE_CHECKING:
    from jaxtyping import Float64

    from lightball.forecast.cases import Cases
    from lightball.probe import NoiseAhead, PathPoint, SpectralMeasure


class Along:
    """A path as functions of the flow time."""

    def __init__(self, points: Sequence[PathPoint], warm: bool, most_nodes: int | None = None) -> None:
        self.points = points
        self.times = np.array([point.time for point in points])
        self.horizon = float(self.times[-1])
        self._warm = warm
        losses = np.array([point.loss for point in points])
        slopes = np.array([-point.gradient_norm_squared for point in points])
        self.loss: Callable[[np.ndarray], np.ndarray] = CubicHermiteSpline(self.times, losses, slopes)
        self.noisy: list[tuple[float, NoiseAhead]] = [(p.time, p.noise) for p in points if p.noise is not None]
        self._measures = [compressed(noise.measure, most_nodes) for _, noise in self.noisy]

    def lag(self, time: np.ndarray) -> Float64[np.ndarray, "*time"]:
        """g·(g − q), with the buffer's part where it is followed."""
        return self._between(time, lambda p: p.warm_lag if self._warm else p.lag)

    def lag_curvature(self, time: np.ndarray) -> Float64[np.ndarray, "*time"]:
        """(g − q)ᵀH(g − q), likewise."""
        return self._between(time, lambda p: p.warm_lag_curvature if self._warm else p.lag_curvature)

    def discretisation(self, time: np.ndarray) -> Float64[np.ndarray, "*time"]:
        """g·q: SGD's own steps lower the loss by η/2 of it."""
        return self._between(time, lambda p: p.gradient_norm_squared - p.lag)

    def sharpest(self, time: np.ndarray) -> Float64[np.ndarray, "*time"]:
        """The largest curvature up to a time."""
        highest = np.maximum.accumulate([p.sharpness for p in self.points])
        result: np.ndarray = highest[np.minimum(np.searchsorted(self.times, time), len(highest) - 1)]
        return result

    def trace(self, time: np.ndarray) -> Float64[np.ndarray, "*time"]:
        """tr Σ."""
        result: np.ndarray = np.interp(
            time, [at for at, _ in self.noisy], [noise.trace_noise.value for _, noise in self.noisy]
        )
        return result

    def excess(
        self, cases: Cases, momentum: float, record: tuple[int, ...]
    ) -> Float64[np.ndarray, "record case vector"]:
        """By how much noise raises the loss: between what the noise of the two nearest places says, linear in time."""
        steps = np.arange(cases.num_steps)
        traces = self.trace(steps[:, None] * cases.effective_lr)
        found = []
        for measure in self._measures:
            relative = traces / measure.mass if measure.mass > 0 else traces * 0
            found.append(excess(cases, measure, momentum, relative, record))
        at = np.array([time for time, _ in self.noisy])
        wanted = np.array(record)[:, None] * cases.effective_lr
        after = np.clip(np.searchsorted(at, wanted), 1, len(at) - 1)
        share = np.clip((wanted - at[after - 1]) / (at[after] - at[after - 1]), 0.0, 1.0)[..., None]
        everywhere = np.stack(found)
        before = np.take_along_axis(everywhere, (after - 1)[None, ..., None], axis=0)[0]
        behind = np.take_along_axis(everywhere, after[None, ..., None], axis=0)[0]
        return np.asarray(np.where(share == 0, before, (1 - share) * before + share * behind))

    def masses(self, time: Float64[np.ndarray, "case"]) -> Float64[np.ndarray, "case vector"]:
        """Of each vector of the noise measure nearest to a time, as a multiple of their mean."""
        at = np.array([when for when, _ in self.noisy])
        nearest = np.abs(at - time[:, None]).argmin(axis=1)
        return np.stack([masses_of(self._measures[place]) for place in nearest])

    def growth(self, time: np.ndarray) -> Float64[np.ndarray, "*time"]:
        """By how much tr Σ grows, as a share of itself, for a unit of excess; where it was measured."""
        known = [(at, noise.growth) for at, noise in self.noisy if noise.growth is not None]
        if not known:
            return np.zeros_like(time)
        result: np.ndarray = np.interp(time, [at for at, _ in known], [growth for _, growth in known])
        return result

    def _between(self, time: np.ndarray, of: Callable[[PathPoint], float | None]) -> np.ndarray:
        values = [of(point) for point in self.points]
        result: np.ndarray = np.interp(time, self.times, np.array(values, dtype=float))
        return result


def compressed(measure: SpectralMeasure, most_nodes: int | None) -> SpectralMeasure:
    """The measure in one row of so many nodes, without its spread over vectors; None leaves it as it is."""
    return measure if most_nodes is None else measure.compressed(most_nodes)


def masses_of(measure: SpectralMeasure) -> Float64[np.ndarray, "vector"]:
    """The mass of each vector as a multiple of their mean."""
    masses: np.ndarray = measure.weights.sum(axis=1)
    return np.ones(len(masses)) if measure.mass == 0 else masses / measure.mass
