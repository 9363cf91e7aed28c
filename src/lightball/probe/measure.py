"""Spectral measures: how much of a vector lies at which curvature, as Gauss quadratures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class SpectralMeasure:
    """Gauss quadratures of v ↦ Σᵢ (uᵢᵀv)² δ(h − hᵢ), for eigenpairs (hᵢ, uᵢ), of one or several vectors v.

    The measure is the mean over vectors. A quadrature of m nodes is exact for polynomials up to degree 2m − 1.

    Args:
        nodes: curvatures h of each vector's quadrature.
        weights: their masses; vectors with fewer nodes are padded with weight 0 at node 0.
    """

    nodes: Float64[Array, "vector node"]
    weights: Float64[Array, "vector node"]

    def __eq__(self, other: object) -> bool:
        """Whether nodes and weights are equal, to the bit."""
        if not isinstance(other, SpectralMeasure):
            return NotImplemented
        return np.array_equal(self.nodes, other.nodes) and np.array_equal(self.weights, other.weights)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def mass(self) -> float:
        """The measure of everything, the mean of ‖v‖²."""
        return float(self.weights.sum(axis=1).mean())

    def per_vector(self, f: Callable[[Array], Array]) -> Float64[Array, "vector"]:
        """∫ f dμ for the measure of each vector by itself; ``f`` maps an array of curvatures to one of values."""
        with np.errstate(divide="ignore", invalid="ignore"):  # padding has no say, even where f is infinite at 0
            values = np.broadcast_to(np.asarray(f(self.nodes), dtype=float), self.nodes.shape)
        products: Array = self.weights * np.where(self.weights == 0, 0.0, values)
        return products.sum(axis=1)  # type: ignore[no-any-return]

    def integral(self, f: Callable[[Array], Array]) -> float:
        """∫ f dμ."""
        return float(self.per_vector(f).mean())

    def standard_error(self, f: Callable[[Array], Array]) -> float:
        """Standard error of :meth:`integral` over vectors that were drawn at random; nan for one vector."""
        values = self.per_vector(f)
        return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan

    def rescaled(self, mass: float) -> SpectralMeasure:
        """The same shape with another mass; a measure of mass 0 has none and stays."""
        return self if self.mass == 0 else SpectralMeasure(self.nodes, self.weights * (mass / self.mass))

    def compressed(self, num_nodes: int) -> SpectralMeasure:
        """The Gauss quadrature of the mean measure with at most so many nodes, in one row; its weights are positive.

        Raises:
            ValueError: a weight is negative, as in the measure of two different vectors.
        """
        if (self.weights < 0).any():
            raise ValueError("a measure with negative weights has no Gauss quadrature")
        kept = self.weights > 0
        nodes, weights = self.nodes[kept], self.weights[kept] / len(self.weights)
        if not len(nodes):
            return SpectralMeasure(np.zeros((1, 1)), np.zeros((1, 1)))
        # Lanczos on the diagonal matrix of the nodes, whose start vector holds the roots of the weights.
        start = np.sqrt(weights)
        mass, scale = float(weights.sum()), float(np.abs(nodes).max())
        basis = [start / np.linalg.norm(start)]
        diagonal: list[float] = []
        off_diagonal: list[float] = []
        while True:
            image = nodes * basis[-1]
            diagonal.append(float(image @ basis[-1]))
            for _ in range(2):  # the second time against rounding
                image = image - np.array(basis).T @ (np.array(basis) @ image)
            norm = float(np.linalg.norm(image))
            if len(diagonal) == min(num_nodes, len(nodes)) or norm <= 1e-14 * scale:
                break
            off_diagonal.append(norm)
            basis.append(image / norm)
        return quadrature([np.array(diagonal)], [np.array(off_diagonal)], [mass])


def quadrature(diagonals: list[Array], off_diagonals: list[Array], masses: list[float]) -> SpectralMeasure:
    """Gauss quadratures from Jacobi matrices: nodes are eigenvalues, weights squared first components times mass."""
    from scipy.linalg import eigh_tridiagonal

    width = max(len(diagonal) for diagonal in diagonals)
    nodes, weights = np.zeros((len(diagonals), width)), np.zeros((len(diagonals), width))
    for row, (diagonal, off_diagonal, mass) in enumerate(zip(diagonals, off_diagonals, masses, strict=True)):
        values, vectors = eigh_tridiagonal(diagonal, off_diagonal)
        nodes[row, : len(values)] = values
        weights[row, : len(values)] = mass * vectors[0] ** 2
    return SpectralMeasure(nodes, weights)
