"""Lanczos recurrences from several start vectors side by side, and the spectral measures that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.probe.curvature import MEMORY_BUDGET
from lightball.probe.measure import SpectralMeasure, quadrature

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

Product = Callable[["Float[Tensor, 'vector dim']"], "Float[Tensor, 'vector dim']"]
"""Products of a symmetric matrix with each of some vectors."""


@dataclass(frozen=True)
class Tridiagonal:
    """For each start vector v, H in the orthonormal basis of its Krylov space: a Jacobi matrix.

    Args:
        diagonal: its diagonal; 0 after ``steps``.
        off_diagonal: entry j couples steps j and j + 1; the last couples what was not computed any more.
        norms: ‖v‖.
        steps: of each vector; fewer than asked for where the Krylov space ended.
        basis: the basis vectors, where they were kept for reorthogonalisation.
    """

    diagonal: Float64[np.ndarray, "vector step"]
    off_diagonal: Float64[np.ndarray, "vector step"]
    norms: Float64[np.ndarray, "vector"]
    steps: Int[np.ndarray, "vector"]
    basis: Float[Tensor, "step vector dim"] | None = None


def lanczos(
    product: Product,
    starts: Float[Tensor, "vector dim"],
    num_steps: int,
    *,
    reorthogonalise: bool | Literal["auto"] = "auto",
    memory_budget: int = MEMORY_BUDGET,
) -> Tridiagonal:
    """Lanczos from each start vector by itself; one call of ``product`` for all of them in each step.

    Args:
        product: with the symmetric matrix.
        starts: the vectors; their norms are kept apart.
        num_steps: at most; the Krylov space may end earlier.
        reorthogonalise: against all earlier vectors, which are then kept; "auto" where they fit into the budget.
            Without it three vectors are held for each start. Eigenvalues then come again as ghosts: the measures stay
            valid, as copies share the mass, but nodes must not be counted as eigenvalues.
        memory_budget: bytes for the basis.

    Raises:
        InputError: start vectors that are not finite.
    """
    num_vectors, dim = starts.shape
    num_steps = min(num_steps, dim)
    if num_steps < 1 or num_vectors < 1:
        raise InputError(f"Lanczos has {num_vectors} start vectors and {num_steps} steps, but needs at least one each")
    if reorthogonalise == "auto":
        reorthogonalise = num_steps * num_vectors * dim * starts.element_size() <= memory_budget
    basis = starts.new_zeros(num_steps, num_vectors, dim) if reorthogonalise else None
    diagonal, off_diagonal = np.zeros((2, num_vectors, num_steps))
    steps = np.zeros(num_vectors, int)
    for j, (_, alpha, beta, active) in enumerate(recurrence(product, starts, num_steps, basis)):
        diagonal[:, j], off_diagonal[:, j] = alpha, beta
        steps += active
    return Tridiagonal(diagonal, off_diagonal, _numpy(starts.norm(dim=1)), steps, basis)


def measure(tridiagonal: Tridiagonal) -> SpectralMeasure:
    """The Gauss quadratures of the start vectors, m nodes for m steps: exact for polynomials up to degree 2m − 1."""
    diagonals, off_diagonals = [], []
    for diagonal, off_diagonal, steps in zip(
        tridiagonal.diagonal, tridiagonal.off_diagonal, tridiagonal.steps, strict=True
    ):
        # A vector of norm 0 has no Krylov space; its measure is mass 0 at curvature 0.
        diagonals.append(diagonal[: max(steps, 1)])
        off_diagonals.append(off_diagonal[: max(steps, 1) - 1])
    return quadrature(diagonals, off_diagonals, list(tridiagonal.norms**2))


Step = tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]


def recurrence(product: Product, starts: Tensor, num_steps: int, basis: Tensor | None = None) -> Iterator[Step]:
    """Basis vectors, diagonal, off-diagonal, and which vectors still had a direction, step by step.

    Fills ``basis`` and reorthogonalises against it where there is one. A recurrence that has ended goes on as zeros.
    """
    norms = starts.norm(dim=1)
    if not norms.isfinite().all():
        raise InputError("a start vector for Lanczos is not finite: look at the gradients that it comes from")
    current = starts / torch.where(norms > 0, norms, 1)[:, None]
    previous, beta = torch.zeros_like(current), torch.zeros_like(norms)
    scale = torch.zeros_like(norms)
    active = norms > 0
    for j in range(num_steps):
        if not active.any():
            return
        image = _image(product, current, active)
        image -= beta[:, None] * previous
        alpha = (image * current).sum(dim=1)
        image -= alpha[:, None] * current
        if basis is not None:
            basis[j] = current
            _project_out(image, basis[: j + 1])
        beta = image.norm(dim=1)
        scale = torch.maximum(scale, alpha.abs() + beta)
        going_on = active & (beta > 10 * torch.finfo(beta.dtype).eps * scale)
        beta = torch.where(going_on, beta, 0)
        yield current, _numpy(alpha), _numpy(beta), active.cpu().numpy()
        previous = current
        current = torch.where(going_on[:, None], image / torch.where(going_on, beta, 1)[:, None], 0)
        active = going_on


def _image(product: Product, vectors: Tensor, active: Tensor) -> Tensor:
    """Products, without asking for those of vectors that have ended."""
    if active.all():
        return product(vectors).clone()
    image = torch.zeros_like(vectors)
    image[active] = product(vectors[active])
    return image


def _project_out(image: Tensor, basis: Float[Tensor, "step vector dim"]) -> None:
    """Twice, since what rounding leaves after once would grow."""
    for _ in range(2):
        coefficients = torch.einsum("svd,vd->vs", basis, image)
        image -= torch.einsum("svd,vs->vd", basis, coefficients)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
