"""A probe that a training run can afford every thousand steps: few Lanczos steps over few microbatches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import nn
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.probe.batches import Batch, num_examples
from lightball.probe.buffer import momentum_of
from lightball.probe.curvature import Curvature
from lightball.probe.data import curvature_batches_of
from lightball.probe.eigenvalues import Eigenvalue
from lightball.probe.estimates import Estimate, ratio_estimate
from lightball.probe.forms import measures_of
from lightball.probe.noise import gradient_sample
from lightball.probe.objective import Loss, Mode, Objective
from lightball.probe.record import Probe
from lightball.probe.scope import unchanged

ENDLESS = 2**53
"""Stands for the size of a training set that is not known: the correction for drawing without replacement is left."""


@dataclass(frozen=True)
class Effort:
    """What a monitor measures in each of its intervals.

    Args:
        microbatches: for the gradient and its noise: drawn over the interval, kept until the probe, one gradient each.
        curvature_batches: how many of them curvature is taken over.
        lanczos_steps: for each vector.
        noise_vectors: random combinations of the microbatches' gradients, from which the noise's curvature comes.
        curvature: "hessian", or "ggn" for its positive part, for a loss of :func:`lightball.probe.supervised`: what is
            taken over few examples has negative curvature that all of them have not, and forecasts run away with it.
        pairs: gradients of training that are compared two by two, for tr Σ; see :class:`GradientPairs`.

    Costs ``microbatches`` gradients and (4 + 2 ``noise_vectors``) × ``lanczos_steps`` products with the curvature of
    ``curvature_batches`` microbatches, which share forward passes.

    Raises:
        InputError: a count below its least.
    """

    microbatches: int = 6
    curvature_batches: int = 1
    lanczos_steps: int = 5
    noise_vectors: int = 2
    pairs: int = 12
    curvature: Literal["hessian", "ggn"] = "hessian"

    def __post_init__(self) -> None:
        least = {"microbatches": 2, "curvature_batches": 1, "lanczos_steps": 1, "noise_vectors": 2, "pairs": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"{name} is {getattr(self, name)}, but must be at least {bound}")
        if self.curvature_batches > self.microbatches:
            raise InputError(
                f"curvature_batches is {self.curvature_batches}, but must be at most microbatches, {self.microbatches}"
            )


def quick_probe(
    model: nn.Module,
    loss: Loss,
    data: Sequence[Batch],
    effort: Effort,
    *,
    buffer: Optimizer | None,
    training_examples: int | None,
    mode: Mode = "as is",
    seed: int = 0,
) -> Probe:
    """What :func:`lightball.probe.probe` measures, without tr H, and with extreme eigenvalues bounded from one side.

    ``sharpness`` is the largest Ritz value of all recurrences, at most λ_max; ``smallest`` at least λ_min; neither has
    a residual bound. The bias of a small curvature batch is not measured.

    Raises:
        InputError: too few batches, a loss that is no finite scalar or not differentiable twice, as in ``probe``.
    """
    with unchanged(model, buffer):
        objective = Objective(model, loss, mode=mode, seed=seed)
        curved = curvature_batches_of(data, min(effort.curvature_batches, len(data)))
        sample = gradient_sample(objective, data, effort.noise_vectors, seed=seed)
        product = Curvature(objective, curved, effort.curvature)
        momentum = None if buffer is None else momentum_of(buffer, objective)
        # Without room for a basis: in so few steps ghosts are rare, and measures stay valid with them.
        measures = measures_of(product, sample.gradient, sample.vectors, momentum, effort.lanczos_steps, 0)
    population = max(training_examples or ENDLESS, sample.num_examples)
    trace = sample.trace(population)
    # Quadratures are exact for h: they hold ĝᵀHĝ and nᵀHn of each noise vector.
    contracted = sample.contracted(trace, measures.noise.per_vector(_curvature))
    norm = sample.quadratic(sample.gradient, sample.vectors, trace, population)
    share = sample.share(population)
    along = measures.gradient.integral(_curvature) - share * contracted.value
    nodes = np.concatenate([m.nodes[m.weights > 0] for m in (measures.gradient, measures.noise)])
    unknown = Estimate(math.nan, -math.inf, math.inf, 0)
    return Probe(
        loss=sample.loss,
        num_parameters=objective.dim,
        training_examples=population,
        gradient_examples=sample.num_examples,
        noise_batches=sample.num_batches,
        per_example=False,
        curvature=effort.curvature,
        curvature_examples=sum(map(num_examples, curved)),
        mode=objective.effective_mode,
        gradient=measures.gradient,
        noise=measures.noise.rescaled(trace.value),
        gradient_noise_share=share,
        buffer=measures.buffer,
        gradient_norm_squared=norm,
        trace_noise=trace,
        noise_scale=ratio_estimate(trace, norm),
        preconditioned_noise_scale=replace(unknown, value=contracted.value / along if along > 0 else math.inf),
        gradient_curvature=along,
        noise_curvature=contracted,
        trace=unknown,
        sharpness=Eigenvalue(float(nodes.max()), math.inf, False),
        smallest=Eigenvalue(float(nodes.min()), math.inf, False),
        sharpness_bias=None,
        update_curvature=None,
        notes=(),
    )


def with_trace_noise(probe: Probe, trace: Estimate) -> Probe:
    """The same probe with tr Σ from elsewhere: all that depends on it follows."""
    scale = trace.value / probe.trace_noise.value if probe.trace_noise.value > 0 else 1.0
    contracted = _times(probe.noise_curvature, scale)
    share = probe.gradient_noise_share
    norm = _plus(probe.gradient_norm_squared, share * (probe.trace_noise.value - trace.value))
    along = probe.gradient_curvature + share * (probe.noise_curvature.value - contracted.value)
    unknown = Estimate(contracted.value / along if along > 0 else math.inf, -math.inf, math.inf, 0)
    return replace(
        probe,
        trace_noise=trace,
        noise=probe.noise.rescaled(trace.value),
        noise_curvature=contracted,
        gradient_norm_squared=norm,
        gradient_curvature=along,
        noise_scale=ratio_estimate(trace, norm),
        preconditioned_noise_scale=unknown,
    )


def _curvature(h: np.ndarray) -> np.ndarray:
    return h


def _times(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(estimate.value * factor, estimate.low * factor, estimate.high * factor, estimate.n)


def _plus(estimate: Estimate, shift: float) -> Estimate:
    return Estimate(estimate.value + shift, estimate.low + shift, estimate.high + shift, estimate.n)
