"""The manifold of minimizers Γ: the limit of gradient flow Φ, and tangent and normal spaces from the Hessian.

At a minimizer the Hessian's eigenvectors of positive eigenvalues span the normal space, and ∂Φ is the projection P onto
the rest, the tangent space (arXiv:2110.06914, §3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.dynamics.gradient_flow import flow, sizes
from lightball.errors import InputError
from lightball.oracles.derivatives import gradient, hessian

if TYPE_CHECKING:
    from jaxtyping import Float

    from lightball.oracles.protocol import NoisyGradients, Tensors

RANK_TOLERANCE = 1e-7
"""Eigenvalues of the Hessian below this share of the largest count as zero."""
_MOST_CORRECTIONS = 100
_ROUNDING = 1e-15  # of a correction, beside the size of x


@dataclass(frozen=True)
class Geometry:
    """Tangent and normal space of Γ at some of its points.

    ``normals`` are the eigenvectors of the Hessian with positive eigenvalues, ``curvatures`` these eigenvalues,
    ascending; so λ_max is the last, and tr H their sum.
    """

    normals: Float[Tensor, "replica dim rank"]
    curvatures: Float[Tensor, "replica rank"]

    @property
    def rank(self) -> int:
        """The number of normal directions: the dimension of the space less that of Γ."""
        return self.curvatures.shape[-1]

    def normal_projection(self) -> Float[Tensor, "replica dim dim"]:
        """N = U Uᵀ."""
        return self.normals @ self.normals.mT

    def tangent_projection(self) -> Float[Tensor, "replica dim dim"]:
        """P = I − U Uᵀ, which is ∂Φ."""
        dim = self.normals.shape[-2]
        return torch.eye(dim, dtype=self.normals.dtype, device=self.normals.device) - self.normal_projection()

    def pseudo_inverse(self) -> Float[Tensor, "replica dim dim"]:
        """H† = U diag(1/h) Uᵀ."""
        return (self.normals / self.curvatures[:, None]) @ self.normals.mT

    def inverse_lyapunov(self, matrix: Float[Tensor, "replica dim dim"]) -> Float[Tensor, "replica dim dim"]:
        """𝓛_H⁻¹ M, the Y = N Y N with H Y + Y H = N M N: (uᵢᵀ M uⱼ)/(hᵢ + hⱼ) over normal directions i, j."""
        h, u = self.curvatures, self.normals
        return u @ ((u.mT @ matrix @ u) / (h[:, :, None] + h[:, None, :])) @ u.mT


def project(oracle: NoisyGradients, x: Tensors, rank_tolerance: float = RANK_TOLERANCE) -> Tensors:
    """Φ(x), where gradient flow from x ends, for each replica.

    Error: about 1e-14 of x's size, so that finite differences of Φ have digits left. The flow is followed until it is
    so close that Newton's method across Γ takes it to the same place; see
    :func:`lightball.dynamics.gradient_flow.flow` for the cost.

    Args:
        rank_tolerance: eigenvalues of the Hessian below this share of the largest count as zero.

    Raises:
        InputError: x is not float64; the flow ends in no minimizer; or that is isolated or not of constant rank.
    """
    if x["x"].dtype != torch.float64:
        raise InputError(
            f"the parameters are of {str(x['x'].dtype).removeprefix('torch.')}: the limit of gradient flow needs "
            "float64; make the oracle with x0.double()"
        )
    near = {"x": flow(oracle, x["x"], rank_tolerance)}
    return retract(oracle, near, geometry(oracle, near, rank_tolerance=rank_tolerance), sizes(x["x"]))


def geometry(
    oracle: NoisyGradients, x: Tensors, rank: int | None = None, rank_tolerance: float = RANK_TOLERANCE
) -> Geometry:
    """Tangent and normal space at points of Γ, from one Hessian each.

    Args:
        rank: the number of normal directions, where it is known; then nothing is checked.

    Raises:
        InputError: the points are no minimizers on one manifold.
    """
    return geometry_of(hessian(oracle, x), rank, rank_tolerance)


def geometry_of(
    hessians: Float[Tensor, "replica dim dim"], rank: int | None = None, rank_tolerance: float = RANK_TOLERANCE
) -> Geometry:
    """The same from Hessians."""
    curvatures, axes = torch.linalg.eigh(hessians)
    if rank is None:
        rank = _rank_of(curvatures, rank_tolerance)
    return Geometry(axes[..., -rank:], curvatures[..., -rank:])


def retract(
    oracle: NoisyGradients, x: Tensors, base: Geometry, least_sizes: Float[Tensor, "replica"] | None = None
) -> Tensors:
    """The point of Γ that is reached from x along the normal space of a point of Γ nearby.

    Newton's method with the Hessian of that point. From x = p + v, with v tangent at p, it ends at
    p + v + ½ II(v, v) + O(v³), II the second fundamental form: where Φ and the closest point are too, to this order.

    Args:
        least_sizes: what rounding is measured by where x is smaller, as near the origin; |x| by default, or 1 for 0.

    Raises:
        InputError: x is too far from Γ.
    """
    at = x["x"]
    size = sizes(at) if least_sizes is None else torch.maximum(at.norm(dim=-1), least_sizes)
    last = torch.inf
    for _ in range(_MOST_CORRECTIONS):
        across = (base.normals.mT @ gradient(oracle, {"x": at})[..., None]) / base.curvatures[..., None]
        at = at - (base.normals @ across)[..., 0]
        correction = float((across[..., 0].norm(dim=-1) / size).max())
        if correction <= _ROUNDING or (correction <= 1e3 * _ROUNDING and correction > 0.5 * last):
            return {"x": at}
        last = correction
    raise InputError(
        "a point is too far from the manifold of minimizers to be taken back to it: use a smaller time step"
    )


def hessian_trace(oracle: NoisyGradients, x: Tensors) -> Float[Tensor, "replica"]:
    """tr H, on Γ or not."""
    trace: Tensor = torch.einsum("rii->r", hessian(oracle, x))
    return trace


def sharpness(oracle: NoisyGradients, x: Tensors) -> Float[Tensor, "replica"]:
    """λ_max(H), on Γ or not."""
    largest: Tensor = torch.linalg.eigvalsh(hessian(oracle, x))[:, -1]
    return largest


def _rank_of(curvatures: Float[Tensor, "replica dim"], rank_tolerance: float) -> int:
    """How many eigenvalues are positive, which must be the same number everywhere, some but not all of them."""
    dim = curvatures.shape[-1]
    largest = curvatures.abs().amax(dim=-1, keepdim=True)
    lowest = float((curvatures[:, :1] / largest).min())
    if lowest < -rank_tolerance:
        raise InputError(
            f"the Hessian where gradient flow ends is not positive semidefinite: its smallest eigenvalue is "
            f"{lowest:.3g} times its largest, so this is a saddle; start elsewhere"
        )
    ranks = (curvatures > rank_tolerance * largest).sum(dim=-1)
    fewest, most = int(ranks.min()), int(ranks.max())
    if most == dim:
        raise InputError(
            f"gradient flow ends in an isolated minimizer (the Hessian has rank {dim} in {dim} dimensions): the loss "
            "needs a manifold of minimizers, as overparametrized models have"
        )
    if fewest == 0:
        raise InputError(
            "the Hessian where gradient flow ends is zero: the loss needs a manifold of minimizers with a Hessian that "
            "is positive across it"
        )
    if fewest < most:
        raise InputError(
            f"the Hessian has rank {fewest} at one minimizer and {most} at another: start all trajectories on one "
            "manifold"
        )
    return most
