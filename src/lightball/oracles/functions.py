"""A user's oracle: a loss and a noise sampler, nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightball.errors import InputError, reason_of
from lightball.oracles.checks import repeated, starting_point
from lightball.oracles.derivatives import value_and_gradient
from lightball.oracles.protocol import Tensors

if TYPE_CHECKING:
    from jaxtyping import Float

Loss = Callable[[Tensor], Tensor]
"""Parameters, ``Float["replica dim"]`` → ``Float["replica"]``."""
Sampler = Callable[[int, torch.Generator], Tensor]
"""(replicas, generator) → independent samples, replica axis first."""


class FunctionOracle:
    """g = ∇L(x) + noise(x, sample), with ∇L by autograd.

    Args:
        loss: L for all replicas at once; of torch operations.
        sampler: draws the noise, ``Float["replica dim"]``, of mean 0; or any samples, if ``noise`` is given.
        x0: where all replicas start, ``Float["dim"]``.
        noise: (x, sample) → noise of mean 0, ``Float["replica dim"]``.
        factor: x → S(x), ``Float["replica dim noise"]``, with S Sᵀ the covariance of the noise; only what follows an
            SDE needs it.

    Raises:
        InputError: loss, sampler, noise or factor fail, or give other shapes.
    """

    def __init__(
        self,
        loss: Loss,
        sampler: Sampler,
        x0: Float[Tensor, "dim"],
        noise: Callable[[Tensor, Tensor], Tensor] | None = None,
        factor: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.x0 = starting_point(x0)
        self._loss = loss
        self._sampler = sampler
        self._noise = noise
        self._factor = factor
        self._check()

    def start(self, num_replicas: int) -> Tensors:
        """Every replica at x₀, ``{"x": Float["replica dim"]}``."""
        return repeated(self.x0, num_replicas)

    def draw(self, num_replicas: int, generator: torch.Generator) -> Tensor:
        """What the sampler gives, replica axis first."""
        return self._sampler(num_replicas, generator)

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """The loss L(x) and ``{"x": ∇L(x) + noise}``, ``Float["replica dim"]``."""
        values, gradients = value_and_gradient(self._loss, x["x"])
        return values, {"x": gradients + (self._noise(x["x"], sample) if self._noise else sample)}

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """L(x) as the user's function computes it."""
        return self._loss(x["x"])

    def noise_factor(self, x: Tensors) -> Float[Tensor, "replica dim noise"]:
        """S(x) as the user's function computes it. Raises `InputError` where none was given."""
        if self._factor is None:
            raise InputError(
                "this oracle has no noise covariance, which an SDE needs: give FunctionOracle factor=, a function "
                "x → S(x) of shape (replica, dim, columns) with S Sᵀ the covariance of the noise"
            )
        return self._factor(x["x"])

    def _check(self) -> None:
        two, dim = self.x0.repeat(2, 1), len(self.x0)
        generator = torch.Generator(self.x0.device).manual_seed(0)
        sample = _result("sampler", self._sampler, 2, generator)
        _require_shape("loss", _result("loss", self._loss, two), (2,))
        if self._noise is None:
            _require_shape("sampler", sample, (2, dim))
        else:
            _require_shape("noise", _result("noise", self._noise, two, sample), (2, dim))
        if self._factor is not None:
            _require_shape("factor", _result("factor", self._factor, two), (2, dim, None))


def _result(name: str, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    try:
        value = function(*arguments)
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(
            f"{name} failed for 2 replicas with {type(error).__name__}: {reason_of(error)}; required is a function of "
            "all replicas at once, the first axis, made of torch operations"
        ) from error
    if not isinstance(value, Tensor):
        raise InputError(f"{name} gives {type(value).__name__}; required is a tensor, replica axis first")
    return value


def _require_shape(name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
    fits = value.ndim == len(shape) and all(b in (None, a) for a, b in zip(value.shape, shape, strict=True))
    if not fits:
        required = str(shape).replace("None", "columns")
        raise InputError(f"{name} gives shape {tuple(value.shape)} for 2 replicas; required is {required}")
