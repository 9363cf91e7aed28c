"""The quadratic with noise of constant covariance: every quantity of the theory has a closed form here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.oracles.checks import covariance_root, repeated, starting_point, vector_or_symmetric
from lightball.oracles.noise import Noise, check_noise, draw_noise
from lightball.oracles.protocol import Tensors

if TYPE_CHECKING:
    from jaxtyping import Float


class Quadratic:
    """L(x) = ½ xᵀ H x, g = H x + Σ^{1/2} v with independent entries of v, E v = 0, Cov v = I.

    Args:
        curvature: H: a number or a spectrum, ``Float["dim"]``, for a diagonal H, or a symmetric ``Float["dim dim"]``.
        covariance: Σ, σ² included: a number, a diagonal or a positive semi-definite matrix, likewise.
        x0: where all replicas start, ``Float["dim"]``; its dtype and device are those of the oracle.
        noise: the shape of the entries of v.
        df: degrees of freedom of Student t noise.

    Attributes:
        curvature, covariance: tensors, ``(dim,)`` if diagonal, else ``(dim, dim)``.

    Raises:
        InputError: shapes that do not fit, an H or Σ that is not symmetric, a Σ with a negative eigenvalue, df ≤ 2.
    """

    def __init__(
        self,
        curvature: Tensor | float,
        covariance: Tensor | float,
        x0: Float[Tensor, "dim"],
        noise: Noise = "gaussian",
        df: float = 5.0,
    ) -> None:
        check_noise(noise, df)
        self.x0 = starting_point(x0)
        self.curvature = vector_or_symmetric("curvature", curvature, self.x0)
        self.covariance = vector_or_symmetric("covariance", covariance, self.x0)
        self.noise = noise
        self.df = df
        self._root = covariance_root(self.covariance)

    def start(self, num_replicas: int) -> Tensors:
        """Every replica at x₀, ``{"x": Float["replica dim"]}``."""
        return repeated(self.x0, num_replicas)

    def draw(self, num_replicas: int, generator: torch.Generator) -> Float[Tensor, "replica dim"]:
        """v, of independent entries with mean 0 and variance 1."""
        return draw_noise(self.noise, (num_replicas, len(self.x0)), generator, self.x0.dtype, self.df)

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """The loss L(x) and ``{"x": H x + Σ^{1/2} v}`` for ``sample`` v."""
        gradient = _applied(self.curvature, x["x"])
        noise = _applied(self._root, sample)
        return 0.5 * (x["x"] * gradient).sum(dim=-1), {"x": gradient + noise}

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """½ xᵀ H x."""
        return 0.5 * (x["x"] * _applied(self.curvature, x["x"])).sum(dim=-1)

    def noise_factor(self, x: Tensors) -> Float[Tensor, "replica dim dim"]:
        """The symmetric root Σ^{1/2}, the same for every replica."""
        root = torch.diag(self._root) if self._root.ndim == 1 else self._root
        return root.expand(len(x["x"]), -1, -1)


def _applied(symmetric: Tensor, vectors: Float[Tensor, "replica dim"]) -> Float[Tensor, "replica dim"]:
    """The symmetric matrix, or diagonal, times each vector."""
    return symmetric * vectors if symmetric.ndim == 1 else vectors @ symmetric
