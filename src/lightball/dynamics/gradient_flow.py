"""Gradient flow to its limit, for many starts at once, stiff or not, to the last digits of float64.

Collocation at the ten Radau points of each step (Radau IIA, order 19; Hairer and Wanner, Solving Ordinary Differential
Equations II, §IV.5), every start with a step size of its own. The Hessian at the beginning of a step is diagonalised;
in its axes Newton's method has a 10 × 10 system for each dimension, and all stages take their gradients as one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles.derivatives import gradient, hessian

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from lightball.oracles.protocol import NoisyGradients

_STAGES = 10
_TOLERANCE = 1e-9  # of the highest coefficient in a step, beside the size of x; the error at its end is far smaller
_ROUNDING = 1e-14  # of Newton's last correction, beside the size of x
_MOST_CORRECTIONS = 20
_SHORTER = 1e3  # the share of a step on which Newton's method does not converge: half of it comes next
_NEAR = 1e-9  # from here on, beside the size of x, flow and Newton's method differ by less than rounding
_MOST_STEPS = 5_000
_FARTHEST = 1e8  # times as far from the origin as the start: such a flow has no limit


def flow(
    oracle: NoisyGradients, x: Float[Tensor, "replica dim"], rank_tolerance: float
) -> Float[Tensor, "replica dim"]:
    """Follow dx/dt = −∇L(x) until a minimizer is within about 1e-9 of x's size.

    Error: about 1e-15 of x's size, 1e-14 where curvatures across the minimizers are a thousand times apart. Cost: a
    Hessian and some 10 gradients at 10 points a step; a dozen steps, a hundred for such a stiff loss, thousands for
    one a thousand times stiffer.

    Args:
        rank_tolerance: eigenvalues of the Hessian below this share of the largest count as zero; so a flow that takes
            longer than 30/(``rank_tolerance`` × the largest at the start) has no non-degenerate minimizer to go to.

    Raises:
        InputError: the flow diverges, or reaches no minimizer, or only ever more slowly.
    """
    x, starts = x.clone(), sizes(x)
    steps, times, limits = (torch.zeros_like(starts) for _ in range(3))
    moving = torch.arange(len(x), device=x.device)
    for number in range(_MOST_STEPS):
        local = _Local.at(oracle, x[moving], starts[moving])
        if number == 0:
            rates = local.rates()
            steps, limits = 0.1 / rates, 30 / (rank_tolerance * rates)
        going_on = ~local.has_arrived(rank_tolerance)
        if not bool(going_on.any()):
            return x
        moving, local = moving[going_on], local.only(going_on)
        _require_in_time(times[moving], limits[moving])
        moved, share = _collocate(oracle, local, steps[moving])
        accepted = share <= 1
        x[moving[accepted]] += moved[accepted]
        times[moving[accepted]] += steps[moving[accepted]]
        steps[moving] *= (0.9 * share ** (-1 / _STAGES)).clamp(0.2, 4.0)
    raise InputError(
        f"gradient flow is not near a minimizer after {_MOST_STEPS:,} steps: the loss needs a manifold of minimizers "
        "that the flow reaches from here; start nearer to one"
    )


def sizes(x: Float[Tensor, "replica dim"]) -> Float[Tensor, "replica"]:
    """|x|, by which errors are measured; 1 at the origin."""
    norms = x.norm(dim=-1)
    return torch.where(norms > 0, norms, torch.ones_like(norms))


@dataclass(frozen=True)
class _Local:
    """The loss around some points to second order."""

    x: Float[Tensor, "replica dim"]
    size: Float[Tensor, "replica"]
    slope: Float[Tensor, "replica dim"]  # in the axes of the Hessian
    curvature: Float[Tensor, "replica dim"]
    axes: Float[Tensor, "replica dim dim"]

    @classmethod
    def at(cls, oracle: NoisyGradients, x: Float[Tensor, "replica dim"], starts: Float[Tensor, "replica"]) -> _Local:
        slope, size = gradient(oracle, {"x": x}), torch.maximum(x.norm(dim=-1), starts)
        if not bool(slope.isfinite().all()) or bool((size > _FARTHEST * starts).any()):
            raise InputError(
                "gradient flow diverges: the loss has no minimizer that it reaches from here; it needs a manifold of "
                "minimizers, so choose a loss that attains its minimum, or another start"
            )
        curvature, axes = torch.linalg.eigh(hessian(oracle, {"x": x}))
        return cls(x, size, _along(axes, slope), curvature, axes)

    def only(self, some: Bool[Tensor, "replica"]) -> _Local:
        return _Local(*(value[some] for value in vars(self).values()))

    def rates(self) -> Float[Tensor, "replica"]:
        """How fast the flow may change, per unit of time."""
        tiny = torch.finfo(self.x.dtype).tiny
        return torch.maximum(self.curvature.abs().amax(dim=-1), self.slope.norm(dim=-1) / self.size).clamp(min=tiny)

    def has_arrived(self, rank_tolerance: float) -> Bool[Tensor, "replica"]:
        """Whether Newton's step across the minimizers is short, and nothing but rounding pulls along them."""
        largest = self.curvature[:, -1:].clamp(min=0)
        across = self.curvature > rank_tolerance * largest
        zero = torch.zeros_like(self.slope)
        newton: Tensor = torch.where(across, self.slope / self.curvature, zero).norm(dim=-1)
        left: Tensor = torch.where(across, zero, self.slope).norm(dim=-1)
        return (newton <= _NEAR * self.size) & (left <= 1e-14 * largest[:, 0] * self.size)


def _collocate(
    oracle: NoisyGradients, local: _Local, steps: Float[Tensor, "replica"]
) -> tuple[Float[Tensor, "replica dim"], Float[Tensor, "replica"]]:
    """The displacement over one step, and its error as a share of what is allowed; above 1 is to be done again.

    Solves A⁻¹z = −h ∇L(x + z) for the displacements z at the stages, all in the axes of the Hessian at x.
    """
    inverse, highest = (torch.from_numpy(matrix).to(local.x) for matrix in _radau())
    stiffness = steps[:, None] * local.curvature.clamp(min=0)
    eye = torch.eye(_STAGES, dtype=local.x.dtype, device=local.x.device)
    newton = torch.linalg.inv(inverse + stiffness[..., None, None] * eye)  # replica dim stage stage
    z = local.x.new_zeros(*local.x.shape, _STAGES)
    slopes = local.slope[..., None].expand_as(z)
    # A stiff gradient is rounded by more than the slow motion that it hides.
    allowed = _ROUNDING * local.size * (0.01 * stiffness[:, -1]).clamp(min=1)
    correction = torch.full_like(steps, torch.inf)
    for _ in range(_MOST_CORRECTIONS):
        last = correction
        residual = z @ inverse.T + steps[:, None, None] * slopes
        change = (newton @ residual[..., None])[..., 0]
        z = z - change
        points = local.x[:, None] + z.mT @ local.axes.mT
        slopes = _along(local.axes[:, None], gradient(oracle, {"x": points.flatten(0, 1)}).view_as(points)).mT
        correction = change.flatten(1).norm(dim=-1)
        if not bool(((correction > 0.1 * allowed) & (correction < 0.5 * last)).any()):
            break  # done, or no better any more
    # The slopes that belong to z, without the rounding of stiff gradients.
    share = (z @ (highest @ inverse)).norm(dim=-1) / (_TOLERANCE * local.size)
    shown = torch.where(correction > allowed, _SHORTER, share).nan_to_num(nan=torch.inf)
    return (local.axes @ z[..., -1:])[..., 0], shown


def _along(axes: Float[Tensor, "*batch dim dim"], vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    return (vectors[..., None, :] @ axes)[..., 0, :]


@cache
def _radau() -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """A⁻¹ of the Radau points on (0, 1], and the functional that gives the highest Legendre coefficient of slopes."""
    nodes = np.sort(legendre.legroots([0.0] * (_STAGES - 1) + [-1.0, 1.0]))
    values = legendre.legvander(nodes, _STAGES)
    degrees = np.arange(_STAGES)
    lower = np.concatenate([-np.ones((_STAGES, 1)), values[:, : _STAGES - 1]], axis=1)
    integrals = (values[:, 1:] - lower) / (2 * (2 * degrees + 1))  # from −1, on half the length: the unit interval
    coefficients = np.linalg.inv(values[:, :_STAGES])
    return np.linalg.inv(integrals @ coefficients), coefficients[-1]


def _require_in_time(times: Tensor, limits: Tensor) -> None:
    if bool((times > limits).any()):
        raise InputError(
            f"gradient flow is not near a minimizer after time {float(times.max()):.2g}: the loss attains no minimum "
            "from here or is flatter than quadratic around it; it needs a manifold of minimizers with a Hessian of "
            "constant rank"
        )
