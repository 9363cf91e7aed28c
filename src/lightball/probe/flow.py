"""Gradient flow of models of any size: a stabilised explicit method, which takes long steps where curvature is stiff.

A step of the method of Sommeijer, Shampine and Verwer (RKC, 1998) has s stages, order 2, and is stable for steps up to
⅔(s² − 1) over the largest curvature λ_max: a step over the time t costs some √(1.5 t λ_max) gradients, where gradient
descent needs t λ_max/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Field = Callable[[Tensor], Tensor]
"""state → its velocity, of the same shape."""

_DAMPING = 2 / 13
_MOST_STAGES = 60
_SAFETY, _SLOWEST, _FASTEST = 0.8, 0.1, 5.0


@dataclass(frozen=True)
class FlowStep:
    """A state on the way, its velocity, and how much it cost to come here from the one before."""

    time: float
    state: Float[Tensor, "part dim"]
    velocity: Float[Tensor, "part dim"]
    evaluations: int


def flow(
    field: Field,
    stiffness: Callable[[Tensor], float],
    start: Float[Tensor, "part dim"],
    times: list[float],
    *,
    tolerance: float,
    first_step: float | None = None,
) -> Iterator[FlowStep]:
    """The solution of z' = field(z) from ``start`` at time 0, at every step; steps end at each of ``times``.

    Args:
        field: the velocity of a state whose first part is the position, the others tangents to its path.
        stiffness: position → an upper estimate of the largest curvature there, which bounds steps.
        start: the state at time 0.
        times: rising, above 0.
        tolerance: of the error of a step in each part, relative to how far that part has moved, or is long.
        first_step: a first guess.

    Error: of order ``tolerance`` for a flow that contracts. Cost: evaluations of the field, as each step says.
    """
    state, velocity, time, count = start, field(start), 0.0, 1
    yield FlowStep(0.0, state, velocity, count)
    spread = stiffness(state[0])
    ahead = first_step or min(times[0], 1 / max(spread, 1e-12))
    count = 0
    for end in times:
        while time < end:
            length = min(ahead, end - time)
            length = min(length, _longest(_MOST_STAGES, spread))
            new = _step(field, state, velocity, length, _stages(length, spread))
            new_velocity = field(new)
            count += _stages(length, spread)
            error = _error(start, state, velocity, new, new_velocity, length, tolerance)
            if not error <= 1:
                ahead = length * max(_SLOWEST, _SAFETY / error ** (1 / 3) if math.isfinite(error) else _SLOWEST)
                spread = max(spread, stiffness(state[0]))
                if ahead < 1e-9 * end:
                    raise FloatingPointError(f"the flow could not be followed beyond the time {time:g}")
                continue
            time = end if end - time <= length * (1 + 1e-12) else time + length
            state, velocity = new, new_velocity
            yield FlowStep(time, state, velocity, count)
            count = 0
            spread = stiffness(state[0])
            ahead = length * min(_FASTEST, _SAFETY / max(error, 1e-6) ** (1 / 3)) if length >= 0.999 * ahead else ahead


def _step(field: Field, state: Tensor, velocity: Tensor, length: float, stages: int) -> Tensor:
    """One step of the three-term recursion."""
    first, rows = _coefficients(stages)
    before, now = state, state + first * length * velocity
    for mu, nu, mu_tilde, gamma in rows:
        following = (1 - mu - nu) * state + mu * now + nu * before
        following = following + length * (mu_tilde * field(now) + gamma * velocity)
        before, now = now, following
    return now


@cache
def _coefficients(stages: int) -> tuple[float, tuple[tuple[float, float, float, float], ...]]:
    """Of the first stage, and (μ, ν, μ̃, γ̃) of the others, from Chebyshev polynomials at w₀ and their derivatives."""
    w0 = 1 + _DAMPING / stages**2
    t, dt, ddt = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for _ in range(2, stages + 1):
        ddt.append(4 * dt[-1] + 2 * w0 * ddt[-1] - ddt[-2])
        dt.append(2 * t[-1] + 2 * w0 * dt[-1] - dt[-2])
        t.append(2 * w0 * t[-1] - t[-2])
    w1 = dt[stages] / ddt[stages]
    b = [0.0, 1 / w0] + [ddt[j] / dt[j] ** 2 for j in range(2, stages + 1)]
    b[0] = b[2]
    a = [1 - b[j] * t[j] for j in range(stages + 1)]
    rows = []
    for j in range(2, stages + 1):
        mu_tilde = 2 * b[j] * w1 / b[j - 1]
        rows.append((2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], mu_tilde, -a[j - 1] * mu_tilde))
    return b[1] * w1, tuple(rows)


def _longest(stages: int, spread: float) -> float:
    return 0.65 * (stages**2 - 1) / spread if spread > 0 else math.inf


def _stages(length: float, spread: float) -> int:
    return max(2, math.ceil(math.sqrt(1 + length * spread / 0.65)))


def _error(
    start: Tensor, state: Tensor, velocity: Tensor, new: Tensor, new_velocity: Tensor, length: float, tolerance: float
) -> float:
    """The method's estimate of its local error over what is allowed, the largest over the parts of the state."""
    estimate = 0.8 * (state - new) + 0.4 * length * (velocity + new_velocity)
    moved = torch.linalg.vector_norm(new - start, dim=1)
    # A tangent that begins at 0 is measured by the velocity of the path for its first steps.
    allowed = tolerance * (moved + length * torch.linalg.vector_norm(velocity, dim=1))
    sizes = torch.linalg.vector_norm(estimate, dim=1)
    ratios = torch.where(sizes == 0, 0.0, sizes / allowed)
    return float(ratios.max())
