"""Least squares with label noise: fresh noise on the targets at every step, none left once labels are exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.errors import InputError, reason_of
from lightball.oracles.checks import repeated, starting_point
from lightball.oracles.derivatives import jacobian, value_and_gradient
from lightball.oracles.noise import Noise, check_noise, draw_noise
from lightball.oracles.protocol import Tensors

if TYPE_CHECKING:
    from jaxtyping import Float

Predict = Callable[[Tensor], Tensor]
"""Parameters, ``Float["replica dim"]`` → predictions, ``Float["replica example"]``."""


class LabelNoise:
    """L(x) = 1/n Σᵢ ½ (fᵢ(x) − yᵢ)²; a gradient sees the labels yᵢ + s εᵢ, with fresh independent εᵢ.

    Where f fits the labels exactly, Σ = (s²/n) H; with batches of B, (s²/B) H.

    Args:
        predict: f, for all replicas at once; of torch operations.
        targets: y, ``Float["example"]``.
        noise_std: s, the standard deviation of the noise on a label.
        x0: where all replicas start, ``Float["dim"]``; its dtype and device are those of the oracle.
        batch_size: B examples drawn with replacement for a gradient; all n of them if None. (Their predictions are
            computed either way.)
        noise: the shape of ε; ``df`` of Student t noise.

    Raises:
        InputError: predictions that fail or do not fit the targets, a negative noise, a batch size below 1.
    """

    def __init__(
        self,
        predict: Predict,
        targets: Float[Tensor, "example"],
        noise_std: float,
        x0: Float[Tensor, "dim"],
        batch_size: int | None = None,
        noise: Noise = "gaussian",
        df: float = 5.0,
    ) -> None:
        check_noise(noise, df)
        self.x0 = starting_point(x0)
        if not 0 <= noise_std < math.inf:
            raise InputError(f"noise_std is {noise_std:g}; required is a finite number ≥ 0")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; required is a number ≥ 1, or none for all examples")
        self.predict = predict
        self.targets = targets.detach().to(self.x0)
        self.noise_std = noise_std
        self.batch_size = batch_size
        self.noise = noise
        self.df = df
        try:
            shape = tuple(predict(self.x0.expand(2, -1)).shape)
        except Exception as error:  # the user's own code runs here: anything can be raised
            raise InputError(
                f"predict failed for 2 replicas with {type(error).__name__}: {reason_of(error)}; required is a "
                "function (replica, dim) → (replica, example) of torch operations"
            ) from error
        if targets.ndim != 1 or shape != (2, len(targets)):
            raise InputError(
                f"predict makes shape {shape} of 2 replicas, and targets have shape {tuple(targets.shape)}; required "
                "is (replica, example) and (example,)"
            )

    def start(self, num_replicas: int) -> Tensors:
        """Every replica at x₀, ``{"x": Float["replica dim"]}``."""
        return repeated(self.x0, num_replicas)

    def draw(self, num_replicas: int, generator: torch.Generator) -> Tensor:
        """The noise of every label, ``Float["replica example"]``; with batches ``Float["replica 2 batch"]``: which
        examples, as floating-point numbers (exact: float32 counts to 16 million), and their noise."""
        n = len(self.targets)
        shape = (num_replicas, self.batch_size or n)
        noise = draw_noise(self.noise, shape, generator, self.x0.dtype, self.df)
        if self.batch_size is None:
            return noise
        examples = torch.randint(n, shape, generator=generator, device=generator.device)
        return torch.stack((examples.to(noise), noise), dim=1)

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """The loss on the noisy labels, of the examples drawn, and its gradient, ``{"x": Float["replica dim"]}``."""

        def losses(p: Tensor) -> Tensor:
            residuals = self.predict(p) - self.targets
            if self.batch_size is None:
                return 0.5 * (residuals - self.noise_std * sample).square().mean(dim=1)
            examples, noise = sample[:, 0].long(), sample[:, 1]
            return 0.5 * (residuals.gather(1, examples) - self.noise_std * noise).square().mean(dim=1)

        values, gradients = value_and_gradient(losses, x["x"])
        return values, {"x": gradients}

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """L(x) with the exact labels."""
        return 0.5 * (self.predict(x["x"]) - self.targets).square().mean(dim=1)

    def noise_factor(self, x: Tensors) -> Float[Tensor, "replica dim noise"]:
        """Columns s ∇fᵢ / n; with batches s ∇fᵢ / √(nB) and, for the choice of examples, (rᵢ ∇fᵢ − ḡ) / √(nB)."""
        slopes = jacobian(self.predict, x["x"]).mT
        n = len(self.targets)
        if self.batch_size is None:
            return slopes * (self.noise_std / n)
        residuals = self.predict(x["x"]) - self.targets
        each = slopes * residuals[:, None, :]
        columns = torch.cat((self.noise_std * slopes, each - each.mean(dim=2, keepdim=True)), dim=2)
        return columns / math.sqrt(n * self.batch_size)


def least_squares(
    features: Float[Tensor, "example dim"],
    targets: Float[Tensor, "example"],
    noise_std: float,
    x0: Float[Tensor, "dim"],
    batch_size: int | None = None,
    noise: Noise = "gaussian",
    df: float = 5.0,
) -> LabelNoise:
    """Label noise on the linear model f(x) = A x, with one row of A = ``features`` for each example."""
    if features.ndim != 2 or features.shape[1] != len(x0):
        raise InputError(
            f"features have shape {tuple(features.shape)}, but x0 has {len(x0)} coordinates; required is "
            f"(example, {len(x0)})"
        )
    rows = features.detach().to(x0)
    return LabelNoise(lambda p: p @ rows.mT, targets, noise_std, x0, batch_size, noise, df)
