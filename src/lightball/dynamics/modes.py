"""A quadratic in the basis of its Hessian, where modes move apart from each other, and moments of what moves there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int

    from lightball.oracles import Quadratic


@dataclass(frozen=True)
class Modes:
    """Curvatures, eigenvectors, and of the noise only what is not zero: pairs i ≤ j of modes whose noises correlate.

    Diagonal noise has one pair a mode, so that nothing quadratic in the dimension is carried along.
    """

    curvature: Float64[Tensor, "mode"]
    basis: Float64[Tensor, "dim mode"] | None  # None where the coordinates are the modes
    start: Float64[Tensor, "mode"]
    first: Int[Tensor, "pair"]
    second: Int[Tensor, "pair"]
    noise: Float64[Tensor, "pair"]

    @property
    def dim(self) -> int:
        return len(self.curvature)

    def mean(self, of_modes: Float64[Tensor, "*case mode part"]) -> Float64[Tensor, "*case all"]:
        """Means of modes as the mean of the vector (x, m), part after part, in the coordinates of the problem."""
        parts = of_modes.mT
        if self.basis is not None:
            parts = parts @ self.basis.T
        return parts.flatten(-2)

    def covariance(self, of_pairs: Float64[Tensor, "*case pair part part"]) -> Float64[Tensor, "*case all all"]:
        """Covariances of pairs as the symmetric covariance matrix of the vector (x, m)."""
        case, parts = of_pairs.shape[:-3], of_pairs.shape[-1]
        blocks = of_pairs.new_zeros(*case, self.dim, self.dim, parts, parts)
        blocks[..., self.first, self.second, :, :] = of_pairs
        blocks[..., self.second, self.first, :, :] = of_pairs.mT
        if self.basis is not None:
            blocks = torch.einsum("ai,...ijpq,bj->...abpq", self.basis, blocks, self.basis)
        return blocks.movedim(-2, -4).transpose(-1, -2).reshape(*case, parts * self.dim, parts * self.dim)


def modes_of(problem: Quadratic) -> Modes:
    """The modes of a quadratic, in float64 on the CPU; diagonal ones keep their coordinates. Cost: one ``eigh``.

    In a basis that is computed, curvatures and noise below 10 d ε of the largest are rounding, and become 0: a flat
    direction without noise is one, and modes whose noises do not correlate make no pair.
    """
    hessian, covariance, start = (
        value.detach().to("cpu", torch.float64) for value in (problem.curvature, problem.covariance, problem.x0)
    )
    covariance = torch.diag(covariance) if covariance.ndim == 1 else covariance
    basis = None
    if hessian.ndim == 2:
        hessian, basis = torch.linalg.eigh(hessian)
        hessian = _without_rounding(hessian)
        covariance, start = _without_rounding(basis.T @ covariance @ basis), basis.T @ start
    first, second = torch.nonzero(torch.triu(covariance)).unbind(1)
    return Modes(hessian, basis, start, first, second, covariance[first, second])


def _without_rounding(values: Float64[Tensor, "mode *mode"]) -> Float64[Tensor, "mode *mode"]:
    """With exact zeros where an orthogonal transformation in float64 leaves no more than its rounding."""
    size = values.abs()
    return torch.where(size > 10 * len(values) * torch.finfo(torch.float64).eps * size.max(), values, 0.0)


@dataclass(frozen=True)
class LinearMoments:
    """Mean and covariance of the vector (x, m) at recorded times, for each case (a choice of rates, say).

    A case is ``diverged`` from where its moments leave the range of float64; they are infinite from there on.
    """

    times: Float64[np.ndarray, "record"]
    modes: Modes
    mean_of_modes: Float64[Tensor, "*case record mode part"]
    covariance_of_pairs: Float64[Tensor, "*case record pair part part"]
    diverged: Bool[Tensor, "*case record"]

    @property
    def mean(self) -> Float64[Tensor, "*case record all"]:
        """E (x, m): x has the first ``dim`` places."""
        return self._infinite_where_diverged(self.modes.mean(self.mean_of_modes))

    @property
    def covariance(self) -> Float64[Tensor, "*case record all all"]:
        """Cov (x, m); memory grows with the square of the dimension, here only."""
        return self._infinite_where_diverged(self.modes.covariance(self.covariance_of_pairs))

    @property
    def loss(self) -> Float64[Tensor, "*case record"]:
        """E L = ½ Σ h (E x)² + ½ Σ h Var x over the modes."""
        h, diagonal = self.modes.curvature, self.modes.first == self.modes.second
        variances = torch.zeros_like(self.mean_of_modes[..., 0])
        variances[..., self.modes.first[diagonal]] = self.covariance_of_pairs[..., diagonal, 0, 0]
        return self._infinite_where_diverged(0.5 * ((self.mean_of_modes[..., 0] ** 2 + variances) @ h))

    def _infinite_where_diverged(self, values: Tensor) -> Tensor:
        mask = self.diverged.reshape(self.diverged.shape + (1,) * (values.ndim - self.diverged.ndim))
        return torch.where(mask, torch.inf, values)


def linear_moments(
    times: np.ndarray,
    modes: Modes,
    mean_of_modes: Float64[Tensor, "*case record mode part"],
    covariance_of_pairs: Float64[Tensor, "*case record pair part part"],
) -> LinearMoments:
    """With what overflowed marked and infinite, not NaN."""
    finite = mean_of_modes.isfinite().all(dim=(-1, -2)) & covariance_of_pairs.isfinite().all(dim=(-1, -2, -3))
    diverged = ~finite
    means = torch.where(diverged[..., None, None], torch.inf, mean_of_modes)
    covariances = torch.where(diverged[..., None, None, None], torch.inf, covariance_of_pairs)
    return LinearMoments(times, modes, means, covariances, diverged)
