"""The loss as the quadratic that it is at the present weights: exact in the learning rate, for as long as that holds.

    E L(x_K) − L(x_0) = ∫ (a_K + ½ h a_K²) dμ_g + excess_K

and, with a buffer m₀, ∫ c_K (1 + h a_K) dμ_gm + ∫ ½ h c_K² dμ_m more, with a_K and c_K from `transfer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lightball.forecast.transfer import Linear, mean_positions

if TYPE_CHECKING:
    from jaxtyping import Float64

    from lightball.forecast.cases import Cases
    from lightball.probe import Probe, SpectralMeasure

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(a_K, c_K, h) → what to integrate."""


def mean_change(
    probe: Probe, cases: Cases, momentum: float, warm: bool, record: tuple[int, ...]
) -> Float64[np.ndarray, "record case"]:
    """The change of the loss without noise after the recorded steps; debiased by the noise's share in ĝ."""
    rates, back = np.unique(cases.effective_lr, return_inverse=True)

    def integral(measure: SpectralMeasure, f: Kernel) -> np.ndarray:
        curvature, weights = measure.nodes.ravel(), measure.weights.ravel() / len(measure.weights)
        a, c = mean_positions(Linear(curvature, rates, np.full_like(rates, momentum)), record)
        values = np.where(weights == 0, 0.0, weights * f(a, c, curvature)).sum(axis=-1)
        return np.asarray(values[:, back])

    def of_gradient(a: np.ndarray, c: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.asarray(a + 0.5 * h * a**2)

    with np.errstate(over="ignore", invalid="ignore"):
        change = integral(probe.gradient, of_gradient)
        if probe.gradient_noise_share:
            change = change - probe.gradient_noise_share * integral(probe.noise, of_gradient)
        if warm and probe.buffer is not None:
            change = change + integral(probe.buffer.cross, lambda a, c, h: c * (1 + h * a))
            change = change + integral(probe.buffer.own, lambda a, c, h: 0.5 * h * c**2)
    return change


def beyond_tangent(probe: Probe, cases: Cases, record: tuple[int, ...]) -> Float64[np.ndarray, "record case"]:
    """What SGDM's loss is above the path's tangent, of second order in its memory τ, if the loss were the quadratic.

    There the difference to SGD is exact, and its tangent τ ∫(1 − ht) e^{−2ht} dμ_g + ½τ² ∫h (1 − ht)² e^{−2ht} dμ_g.
    This sees modes that decay within a memory, which the path's tangent cannot; negative curvature, which runs away on
    a quadratic, is left out.
    """
    rates, first, back = np.unique(cases.effective_lr, return_index=True, return_inverse=True)
    nodes = probe.gradient.nodes.ravel()
    weights = np.where(nodes > 0, probe.gradient.weights.ravel() / len(probe.gradient.weights), 0.0)
    times = np.array(record)[:, None, None] * rates[:, None]
    memory = np.stack([cases.memory_after(step)[first] for step in record])[..., None]
    with np.errstate(over="ignore", invalid="ignore"):
        changes = []
        for momentum in (0.0, cases.momentum):
            a, _ = mean_positions(Linear(nodes, rates, np.full_like(rates, momentum)), record)
            changes.append(a + 0.5 * nodes * a**2)
        ahead, decay = 1 - nodes * times, np.exp(-2 * np.maximum(nodes, 0.0) * times)
        tangent = (memory * ahead + 0.5 * memory**2 * nodes * ahead**2) * decay
        missed = np.where(weights == 0, 0.0, weights * (changes[1] - changes[0] - tangent)).sum(axis=-1)
    return np.asarray(missed[:, back])


def flow_change(probe: Probe, time: float) -> float:
    """The change of the loss by gradient flow over a time, −∫ (1 − e^{−2ht})/(2h) dμ_g."""

    def change(h: np.ndarray) -> np.ndarray:
        flat = np.abs(h * time) < 1e-8
        safe = np.where(flat, 1.0, h)
        with np.errstate(over="ignore"):
            return np.where(flat, -time, np.expm1(-2 * safe * time) / (2 * safe))

    return probe.gradient_integral(change)
