"""The largest and the smallest eigenvalue of a symmetric matrix that is known by its products, with error bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles import seed_of
from lightball.probe.curvature import MEMORY_BUDGET, Curvature
from lightball.probe.lanczos import Product, recurrence

if TYPE_CHECKING:
    from jaxtyping import Float

_MOST_KEPT = 64  # vectors in a basis; more of them cost more to orthogonalise than they save in products
_FEWEST_KEPT = 10  # with fewer, restarts lose more than they keep


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue λ with its error: |λ − value| ≤ residual.

    ``residual`` is ‖Hu − value·u‖ of the unit vector u that was found, computed with a product of its own. The bound
    holds for some eigenvalue; that it is the outermost rests on a random start, as in every Krylov method.
    """

    value: float
    residual: float
    converged: bool


def extreme_eigenvalues(
    product: Product,
    dim: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    tolerance: float | None = None,
    max_products: int = 300,
    require_smallest: bool = True,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> tuple[Eigenvalue, Eigenvalue]:
    """The algebraically largest and the smallest eigenvalue, of whatever signs.

    Lanczos with full reorthogonalisation, restarted with the outermost Ritz vectors of both ends when its basis is
    full. Where the budget has no place for a basis it is Lanczos with three vectors, run a second time to put both Ritz
    vectors together. Ghosts cannot appear as answers: every value comes from a vector and its residual.

    Args:
        product: with the symmetric matrix, for float ``(vector, dim)``.
        dim: its size.
        dtype: of the vectors; default that of the products.
        device: of the vectors; default that of the products.
        tolerance: of the residual, relative to the larger of both absolute values; default 1e-8 for float64 and 1e-4
            for float32, whose products are no more exact.
        max_products: an eigenvalue whose residual is larger after so many is returned as not converged.
        require_smallest: search until the smallest has converged too. It takes long where it has many close to it, as
            0 in a positive semidefinite matrix; without, it is given as far as the largest needed.
        seed: of the random start.
        memory_budget: bytes for the basis.
    """
    if dim < 1 or max_products < 4:
        raise InputError(f"dim is {dim} and max_products {max_products}, but they must be at least 1 and 4")
    if dtype is None or device is None:
        like = (
            product.objective if isinstance(product, Curvature) else product(torch.zeros(1, dim, dtype=torch.float64))
        )
        dtype, device = dtype or like.dtype, device or like.device
    tolerance = (1e-8 if dtype == torch.float64 else 1e-4) if tolerance is None else tolerance
    generator = torch.Generator().manual_seed(seed_of(use="eigenvalues", seed=seed))
    start = torch.randn(dim, generator=generator, dtype=torch.float64).to(device, dtype)
    room = min(dim, _MOST_KEPT, memory_budget // (dim * start.element_size()) - 3)
    ends = [0, -1] if require_smallest else [-1]
    search = _restarted if room >= min(dim, _FEWEST_KEPT) else _twice
    ritz = search(product, start / start.norm(), int(room), ends, tolerance, max_products)
    images, eps = product(ritz), torch.finfo(dtype).eps
    values = (ritz * images).sum(dim=1)
    residuals = (images - values[:, None] * ritz).norm(dim=1)
    scale = float(values.abs().max())
    smallest, largest = (
        # What rounding of the product itself may add: each layer of a network rounds.
        Eigenvalue(float(value), float(residual) + 16 * eps * scale, float(residual) <= tolerance * scale)
        for value, residual in zip(values, residuals, strict=True)
    )
    return largest, smallest


def _restarted(
    product: Product, start: Tensor, room: int, ends: list[int], tolerance: float, max_products: int
) -> Tensor:
    """Unit Ritz vectors of the smallest and the largest Ritz value, by thick restarts.

    K. Wu and H. Simon, doi:10.1137/S0895479898334605.
    """
    basis = start.new_zeros(room + 1, len(start))
    basis[0] = start
    projected = np.zeros((room, room))
    size = 0
    for number in range(max_products - 2):
        image = product(basis[size][None])[0]
        coefficients, rest = _orthogonalised(image, basis[: size + 1])
        projected[: size + 1, size] = projected[size, : size + 1] = coefficients
        size += 1
        values, vectors = np.linalg.eigh(projected[:size, :size])
        scale, beta = float(np.abs(values).max()), float(rest.norm())
        estimates = beta * np.abs(vectors[-1, ends])
        ended = beta <= 10 * torch.finfo(start.dtype).eps * scale or size == len(start)
        # Half the tolerance, as the residual is going to be computed anew.
        if ended or (estimates <= tolerance / 2 * scale).all() or number == max_products - 3:
            break
        basis[size] = rest / beta
        if size == room:
            kept = _outermost(len(values), room // 2)
            basis[: len(kept)] = _combined(basis[:size], vectors[:, kept])
            basis[len(kept)] = basis[size]
            size = len(kept)
            projected[:] = 0
            projected[range(size), range(size)] = values[kept]
    return _units(_combined(basis[:size], vectors[:, [0, -1]]))


def _outermost(number: int, kept: int) -> list[int]:
    """Indices of as many lowest as highest."""
    low = kept // 2
    return [*range(low), *range(number - (kept - low), number)]


def _orthogonalised(image: Tensor, basis: Float[Tensor, "step dim"]) -> tuple[np.ndarray, Tensor]:
    coefficients = basis @ image
    rest = image - coefficients @ basis
    correction = basis @ rest  # the second time against rounding
    return (coefficients + correction).double().cpu().numpy(), rest - correction @ basis


def _combined(basis: Float[Tensor, "step dim"], columns: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(columns.T)).to(basis) @ basis


def _twice(product: Product, start: Tensor, room: int, ends: list[int], tolerance: float, max_products: int) -> Tensor:
    """The same by a three-term recurrence: once for the Ritz values, once more to sum the Ritz vectors."""
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    vectors = np.ones((1, 2))
    for _, alpha, beta, _ in _recurrence(product, start, (max_products - 2) // 2):
        diagonal.append(alpha)
        values, every = eigh_tridiagonal(diagonal, off_diagonal)
        vectors = every[:, [0, -1]]
        if beta == 0 or (beta * np.abs(every[-1, ends]) <= tolerance / 2 * np.abs(values).max()).all():
            break
        off_diagonal.append(beta)
    ritz = start.new_zeros(2, len(start))
    for row, (vector, *_) in zip(vectors, _recurrence(product, start, len(vectors)), strict=True):
        ritz += torch.from_numpy(row).to(start)[:, None] * vector
    return _units(ritz)


def _units(vectors: Tensor) -> Tensor:
    scaled: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
    return scaled


def _recurrence(product: Product, start: Tensor, num_steps: int) -> Iterator[tuple[Tensor, float, float, object]]:
    for vectors, alpha, beta, active in recurrence(product, start[None], max(num_steps, 1)):
        yield vectors[0], float(alpha[0]), float(beta[0]), active
