"""What oracles ask of the tensors that they are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float

    from lightball.oracles.protocol import Tensors


def starting_point(x0: Tensor) -> Float[Tensor, "dim"]:
    """``x0`` as a constant of its own; one vector of finite floating-point numbers is required."""
    if x0.ndim != 1 or len(x0) == 0 or not x0.is_floating_point():
        raise InputError(
            f"x0 has shape {tuple(x0.shape)} and type {str(x0.dtype).removeprefix('torch.')}; required is one vector "
            "of floating-point numbers, shape (dim,)"
        )
    if not bool(x0.isfinite().all()):
        raise InputError(f"x0 is {x0.tolist()}; required are finite numbers")
    return x0.detach().clone()


def repeated(x0: Float[Tensor, "dim"], num_replicas: int) -> Tensors:
    """Every replica at ``x0``, in memory of its own."""
    return {"x": x0.expand(num_replicas, -1).clone()}


def vector_or_symmetric(name: str, value: Tensor | float, like: Float[Tensor, "dim"]) -> Tensor:
    """A number or vector as the diagonal, shape (dim,); a symmetric matrix as it is; dtype and device of ``like``."""
    dim = len(like)
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
    tensor = tensor.expand(dim) if tensor.ndim == 0 else tensor
    if tensor.shape not in ((dim,), (dim, dim)):
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}, but x0 has {dim} coordinates; required is a number, shape "
            f"({dim},) for a diagonal or ({dim}, {dim})"
        )
    if not bool(tensor.isfinite().all()):
        raise InputError(f"{name} has an entry that is not finite; required are finite numbers")
    if tensor.ndim == 2:
        gap = float((tensor - tensor.mT).abs().max())
        if gap > 1e3 * torch.finfo(tensor.dtype).eps * float(tensor.abs().max()):
            raise InputError(
                f"{name} is not symmetric: two entries across the diagonal differ by {gap:g}; required is a symmetric "
                "matrix, say (a + a.T) / 2"
            )
    return tensor.clone()


def covariance_root(covariance: Tensor) -> Tensor:
    """The symmetric root Σ^{1/2}: of a diagonal, shape (dim,), entry by entry. A singular Σ is fine.

    Raises:
        InputError: an eigenvalue is negative by more than rounding; the message names the smallest.
    """
    eigenvalues, vectors = (covariance, None) if covariance.ndim == 1 else torch.linalg.eigh(covariance)
    smallest, largest = float(eigenvalues.min()), float(eigenvalues.abs().max())
    rounding = 0.0 if vectors is None else 10 * len(covariance) * torch.finfo(covariance.dtype).eps * largest
    if smallest < -rounding:
        raise InputError(
            f"covariance has the eigenvalue {smallest:g}; required are eigenvalues ≥ 0 (0 is fine: no noise there)"
        )
    roots = eigenvalues.clamp(min=0).sqrt()
    return roots if vectors is None else (vectors * roots) @ vectors.mT
