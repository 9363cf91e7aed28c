"""An SDE as an oracle: the gradient of the loss with Gaussian noise of the right size for a small step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles.derivatives import gradient
from lightball.oracles.noise import draw_noise
from lightball.oracles.protocol import CovarianceOracle, Tensors

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Diffusion:
    """g = ∇L(x) + √n S(x) z, z ~ N(0, I), with n = ``substeps`` and S Sᵀ = Σ of ``oracle``.

    The update rule on it *is* a numerical scheme for the SDE that the oracle's SGD follows. With the learning rate
    η/n, SGD is Euler–Maruyama with the step η/n in the time t = ηk of

        dX = −∇L(X) dt + √η Σ(X)^{1/2} dW

    and SGDM with η/n and 1 − β = cη/n is semi-implicit Euler–Maruyama of the underdamped equation, which SGDM at
    1 − β = cη follows:

        dX = −M dt          dM = c (∇L(X) − M) dt + c √η Σ(X)^{1/2} dW

    Weak error of either scheme: O(η/n). Both equations: arXiv:2307.15196, §2 and §4.
    """

    oracle: CovarianceOracle
    substeps: int = 1

    def __post_init__(self) -> None:
        if self.substeps < 1:
            raise InputError(f"substeps is {self.substeps}; required is a whole number ≥ 1")

    def start(self, num_replicas: int) -> Tensors:
        """The start of ``oracle``."""
        return self.oracle.start(num_replicas)

    def draw(self, num_replicas: int, generator: torch.Generator) -> Float[Tensor, "replica noise"]:
        """z, one standard normal number for each column of S."""
        start = self.oracle.start(1)
        columns = self.oracle.noise_factor(start).shape[-1]
        return draw_noise("gaussian", (num_replicas, columns), generator, start["x"].dtype)

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """The loss L(x) and ``{"x": ∇L(x) + √n S(x) z}``, ``Float["replica dim"]``, for ``sample`` z."""
        noise = (self.noise_factor(x) @ sample[..., None])[..., 0]
        return self.oracle.loss(x), {"x": gradient(self.oracle, x) + noise}

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """L(x) of ``oracle``."""
        return self.oracle.loss(x)

    def noise_factor(self, x: Tensors) -> Float[Tensor, "replica dim noise"]:
        """√n S(x)."""
        return math.sqrt(self.substeps) * self.oracle.noise_factor(x)
