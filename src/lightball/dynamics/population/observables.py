"""Observables that everyone asks for; any other is a function (x, m) → one number for each trajectory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from lightball.dynamics.population.chunks import Observable
    from lightball.oracles.protocol import NoisyGradients, Tensors


def coordinate(index: int) -> Observable:
    """xᵢ, of oracles with one tensor of parameters, ``{"x": Float["replica dim"]}``."""

    def observe(x: Tensors, m: Tensors) -> Tensor:
        return x["x"][:, index]

    return observe


def square(index: int) -> Observable:
    """xᵢ², whose mean is a second moment, with a standard error of its own."""

    def observe(x: Tensors, m: Tensors) -> Tensor:
        return x["x"][:, index].square()

    return observe


def loss_of(oracle: NoisyGradients) -> Observable:
    """L(x), without noise, of any oracle."""

    def observe(x: Tensors, m: Tensors) -> Tensor:
        return oracle.loss(x)

    return observe


def coordinates(dim: int) -> dict[str, Observable]:
    """All of x, named "x0", "x1", …: with them, the moments hold its mean and covariance matrix within every arm."""
    return {f"x{index}": coordinate(index) for index in range(dim)}
