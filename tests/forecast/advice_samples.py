"""Probes and phases made by hand, and what was recorded on the digits perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightball.forecast.phase import CurvePoint, Phase, Phases
from lightball.probe import Eigenvalue, Estimate, Probe, SpectralMeasure

# Gradient flow on digits: flow time, training loss, λ_max, tr Σ. No command prints it; full-batch steps of η = 0.05 on
# the task `digits` from seed 0 come within about 1 % of these losses up to time 80. It is the curve that
# `lightball advise digits --lr 0.1 --batch-size 64` records for itself.
DIGITS = [
    (0, 2.31054, 0.74, 7.34),
    (2, 2.12059, 0.80, 8.19),
    (5, 1.68690, 1.78, 13.1),
    (10, 0.91439, 3.12, 15.9),
    (20, 0.39634, 4.00, 11.9),
    (40, 0.19966, 3.88, 8.80),
    (80, 0.11310, 3.29, 6.48),
    (160, 0.06381, 2.68, 4.42),
    (320, 0.03023, 2.12, 2.22),
    (640, 0.01168, 1.39, 0.608),
]
# The same for the convolutional net, to where its loss is that small.
DIGITS_CONV = [
    (0, 2.32791, 44.51, 310.0),
    (1, 0.50751, 48.69, 121.0),
    (2, 0.27220, 43.08, 81.5),
    (5, 0.12429, 40.81, 55.5),
    (10, 0.06117, 42.47, 36.7),
    (20, 0.02430, 38.64, 14.1),
    (40, 0.00916, 27.79, 3.66),
]
TRAINING_EXAMPLES = 1078


def known(value: float) -> Estimate:
    return Estimate(value, value, value, 0)


def measure(nodes: Sequence[float], weights: Sequence[float]) -> SpectralMeasure:
    return SpectralMeasure(np.array([nodes], dtype=float), np.array([weights], dtype=float))


def probe_of(
    *,
    loss: float = 1.0,
    curvatures: Sequence[float] = (1.0,),
    gradient: Sequence[float] = (0.1,),
    noise: Sequence[float] = (1.0,),
    norm: Estimate | None = None,
    noise_curvature: Estimate | None = None,
    training_examples: int = TRAINING_EXAMPLES,
    gradient_examples: int = TRAINING_EXAMPLES,
    noise_batches: int = 32,
    sharpness: float | None = None,
) -> Probe:
    """A quadratic with eigenvalues ``curvatures``, where the gradient and the noise have so much of their masses."""
    h, g, s = (np.array(values, dtype=float) for values in (curvatures, gradient, noise))
    squared, along = norm or known(float(g.sum())), noise_curvature or known(float(h @ s))
    return Probe(
        loss=loss,
        num_parameters=100,
        training_examples=training_examples,
        gradient_examples=gradient_examples,
        noise_batches=noise_batches,
        per_example=False,
        curvature="hessian",
        curvature_examples=gradient_examples,
        mode="eval",
        gradient=measure(h, g),
        noise=measure(h, s),
        gradient_noise_share=0.0,
        buffer=None,
        gradient_norm_squared=squared,
        trace_noise=known(float(s.sum())),
        noise_scale=known(float(s.sum() / g.sum())),
        preconditioned_noise_scale=known(float(h @ s / (h @ g))),
        gradient_curvature=float(h @ g),
        noise_curvature=along,
        trace=known(float(h.sum())),
        sharpness=Eigenvalue(float(h.max()) if sharpness is None else sharpness, 0.0, True),
        smallest=Eigenvalue(float(h.min()), 0.0, True),
        sharpness_bias=0.0,
        update_curvature=None,
        notes=(),
    )


def phases_from(path: Sequence[tuple[float, float, float, float]], until: float = np.inf) -> Phases:
    """A recorded path, cut off, with phases at its beginning, in its middle and at its end."""
    path = [point for point in path if point[0] <= until]
    curve = tuple(CurvePoint(time, loss, sharpness) for time, loss, sharpness, _ in path)
    places = {"start": path[1], "middle": path[len(path) // 2], "end": path[-1]}
    phases = tuple(
        Phase(name, time, probe_of(loss=loss, curvatures=(sharpness,), noise=(trace,)))
        for name, (time, loss, sharpness, trace) in places.items()
    )
    return Phases(phases, curve)
