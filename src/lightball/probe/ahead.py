"""What was found on the path ahead; see :mod:`lightball.probe.path`."""

from __future__ import annotations

from dataclasses import dataclass

from lightball.probe.estimates import Estimate
from lightball.probe.measure import SpectralMeasure


@dataclass(frozen=True)
class NoiseAhead:
    """Noise at a place of the path, of single examples as in a probe.

    Args:
        trace_noise: tr Σ there.
        measure: of Σ there, scaled to it.
        growth: by how much tr Σ grows, as a share of itself, for each unit by which noise displacements raise the loss.
        excess: how much they raise the loss over what the quadratic says, where that is a tenth of the loss.
    """

    trace_noise: Estimate
    measure: SpectralMeasure
    growth: float | None
    excess: float | None


@dataclass(frozen=True)
class PathPoint:
    """A place on the path of gradient flow, x(t), with g = ∇L and H there.

    Args:
        time: t, in units of learning rate × steps.
        loss: L(x(t)).
        gradient_norm_squared: ‖g‖².
        lag: g·(g − q): by how much a unit of the memory τ raises the loss, to first order.
        lag_curvature: (g − q)ᵀH(g − q), the second order.
        warm_lag, warm_lag_curvature: with the momentum that the optimizer brought along, g − q − p for g − q.
        sharpness: λ_max, by power iteration along the path.
        noise: at some places.
    """

    time: float
    loss: float
    gradient_norm_squared: float
    lag: float
    lag_curvature: float
    warm_lag: float | None
    warm_lag_curvature: float | None
    sharpness: float
    noise: NoiseAhead | None
