"""The path ahead: where gradient flow carries the weights, and what momentum changes there.

One local quadratic cannot follow a network for long: curvature and noise change as the loss falls. So the mean of the
run is followed itself, along x' = −∇L(x) from the present weights, in the flow time t = ηk. SGD with momentum lags
behind it. To first order in the memory τ = ηβ/(1 − β) its mean is at x(t) + τ (g − q), where g = ∇L(x(t)) and q solves

    q' = −H(x(t)) (q − g),   q(0) = 0

since the average of gradients m ≈ g(t − τ) = g + τHg pulls by τHg more than g does, and the start from m₀ = 0 leaves
it behind by τg(0), which the flow carries to τg(t). SGD's own steps put it at x(t) − (η/2) q. Both hold for every η
and β at once. A buffer m₀ at the start adds −τp with p' = −Hp, p(0) = m₀. On a quadratic q = tHg, so that momentum
lags (tH < 1) first and leads (tH > 1) later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.oracles import generator
from lightball.probe.ahead import NoiseAhead, PathPoint
from lightball.probe.batches import Batch
from lightball.probe.buffer import Carried, momentum_of
from lightball.probe.curvature import MEMORY_BUDGET, Curvature
from lightball.probe.data import batches_of, check_counts
from lightball.probe.flow import FlowStep, flow
from lightball.probe.lanczos import lanczos, measure
from lightball.probe.noise import GradientSample, Progress, gradient_sample
from lightball.probe.objective import Loss, Mode, Objective
from lightball.probe.record import Probe
from lightball.probe.scope import unchanged

if TYPE_CHECKING:
    from jaxtyping import Float

_MARGIN = 1.25  # over an estimate of the largest curvature, which comes from below
_EXCESS = 0.1  # share of the loss by which noise displacements are to raise it where growth is measured


def look_ahead(
    probe: Probe,
    model: nn.Module,
    loss: Loss,
    data: Iterable[Batch],
    horizon: float,
    *,
    noise_data: Iterable[Batch] | None = None,
    noise_points: int = 4,
    noise_vectors: int = 4,
    num_steps: int = 12,
    tolerance: float = 0.02,
    buffer: Carried | Optimizer | None = None,
    mode: Mode = "as is",
    per_example: bool = False,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    progress: Progress | None = None,
) -> Probe:
    """The probe with the path ahead, up to the flow time ``horizon`` = effective learning rate × steps.

    Args:
        probe: of the same model, loss and data; the rest of it stays.
        data: the batches whose mean loss is followed, best the whole training set. The path of a part of it is that
            part's: it overfits it. Large batches are faster.
        noise_data: microbatches for the noise, as in :func:`lightball.probe.probe`; by default ``data``.
        noise_points: places after the start, geometrically spaced, where noise and its curvature are measured.
        noise_vectors, num_steps: of the noise measure at each.
        tolerance: of each step of the flow.
        buffer: as in :func:`lightball.probe.probe`; what it brings along is followed too.

    Cost: for each of some √(horizon · λ_max) to horizon · λ_max steps of the flow a gradient and a product with the
    curvature of all batches; at each noise point three gradients and ``num_steps`` products for ``noise_vectors``
    vectors.

    Raises:
        InputError: a horizon that is not above 0, or what :func:`lightball.probe.probe` raises.
    """
    check_counts(noise_points=noise_points, noise_vectors=noise_vectors, num_steps=num_steps)
    if not (isinstance(horizon, int | float) and 0 < horizon < math.inf):
        raise InputError(
            f"horizon is {horizon!r}, but must be a number above 0: the effective learning rate times the steps ahead"
        )
    with unchanged(model, buffer if isinstance(buffer, Optimizer) else None), torch.inference_mode(False):
        objective = Objective(model, loss, mode=mode, seed=seed)
        batches = batches_of(data)
        noisy = batches if noise_data is None else batches_of(noise_data, "noise_data")
        start = torch.zeros(2 if buffer is None else 3, objective.dim, dtype=objective.dtype, device=objective.device)
        if buffer is not None:
            start[2] = momentum_of(buffer, objective)
        surroundings = _Surroundings(objective, batches, memory_budget, seed)
        marks = [horizon * 4.0 ** (place - noise_points + 1) for place in range(noise_points)]
        points = []
        for step in flow(surroundings.velocity, surroundings.stiffness, start, marks, tolerance=tolerance):
            noise = None
            if step.time == 0 or any(abs(step.time - mark) <= 1e-9 * mark for mark in marks):
                place = objective.shifted(step.state[0])
                sample = gradient_sample(place, noisy, noise_vectors, per_example=per_example, seed=seed)
                noise = _noise(place, noisy, sample, num_steps, memory_budget, per_example, seed)
            points.append(_point(step, surroundings.loss, surroundings.sharpness, noise))
            if progress is not None:
                progress("path", round(1000 * step.time / horizon), 1000)
    return replace(probe, path=tuple(points))


class _Surroundings:
    """Gradients and curvature of all batches at displacements from the present weights."""

    def __init__(self, objective: Objective, batches: Sequence[Batch], memory_budget: int, seed: int) -> None:
        self.objective, self.batches, self.memory_budget = objective, batches, memory_budget
        self.loss = math.nan
        self.sharpness = 0.0
        random = generator(use="sharpness of the path", seed=seed)
        self._direction = torch.randn(objective.dim, generator=random).to(objective.device, objective.dtype)

    def product(self, displacement: Float[Tensor, "dim"]) -> Curvature:
        """The curvature there."""
        return Curvature(self.objective.shifted(displacement), self.batches, memory_budget=self.memory_budget)

    def velocity(self, state: Float[Tensor, "part dim"]) -> Float[Tensor, "part dim"]:
        """−g, H(g − q), and −Hp where a buffer is followed; the loss there is kept beside it."""
        product = self.product(state[0])
        self.loss, gradient = product.loss_and_gradient()
        images = product(torch.stack([gradient - state[1], *(-p for p in state[2:])]))
        return torch.cat([-gradient[None], images])

    def stiffness(self, displacement: Float[Tensor, "dim"]) -> float:
        """By power iteration that goes on from the last place: the estimate is kept as ``sharpness``."""
        product = self.product(displacement)
        for _ in range(10 if self.sharpness == 0 else 1):
            unit = self._direction / self._direction.norm()
            self._direction = product(unit[None])[0]
            self.sharpness = float(unit @ self._direction)
        return _MARGIN * float(self._direction.norm())


def _point(step: FlowStep, loss: float, sharpness: float, noise: NoiseAhead | None) -> PathPoint:
    """From a state of the flow and its velocity, which hold all of it."""
    gradient, image = -step.velocity[0], step.velocity[1]
    lead = gradient - step.state[1]
    warm, warm_image = lead - step.state[2:].sum(dim=0), image + step.velocity[2:].sum(dim=0)
    carried = len(step.state) > 2
    return PathPoint(
        time=step.time,
        loss=loss,
        gradient_norm_squared=float(gradient @ gradient),
        lag=float(gradient @ lead),
        lag_curvature=float(lead @ image),
        warm_lag=float(gradient @ warm) if carried else None,
        warm_lag_curvature=float(warm @ warm_image) if carried else None,
        sharpness=sharpness,
        noise=noise,
    )


def _noise(
    place: Objective,
    batches: Sequence[Batch],
    sample: GradientSample,
    num_steps: int,
    memory_budget: int,
    per_example: bool,
    seed: int,
) -> NoiseAhead:
    examples = sample.num_examples
    trace = sample.trace(examples)
    product = Curvature(place, batches, memory_budget=memory_budget)
    found = measure(lanczos(product, sample.vectors, num_steps, memory_budget=memory_budget)).rescaled(trace.value)
    mean = sample.vectors.mean(dim=0)
    rise = 0.5 * float(mean @ product(mean[None])[0])
    growth = excess = None
    if rise > 0 and sample.loss > 0:
        size = (_EXCESS * sample.loss / rise) ** 0.5
        sides = [
            gradient_sample(place.shifted(sign * size * mean), batches, 2, per_example=per_example, seed=seed)
            for sign in (1.0, -1.0)
        ]
        expected = _EXCESS * sample.loss
        excess = (sum(side.loss for side in sides) / 2 - sample.loss) / expected
        noisier = sum(side.trace(examples).value for side in sides) / 2
        growth = (noisier / trace.value - 1) / expected if trace.value > 0 else None
    return NoiseAhead(trace, found, growth, excess)
