"""Derivatives of an oracle's loss with one tensor of parameters, for each replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, jacrev

from lightball.oracles.protocol import NoisyGradients, Tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

# Replicas do not meet: the derivative of a sum over replicas holds that of each, so no function of ours or of a user
# need be mapped over replicas.


def gradient(oracle: NoisyGradients, x: Tensors) -> Float[Tensor, "replica dim"]:
    """∇L(x), by reverse mode; about three losses. Can be differentiated, traced and batched."""
    return grad(lambda p: oracle.loss({"x": p}).sum())(x["x"])  # type: ignore[no-any-return]


def hessian(oracle: NoisyGradients, x: Tensors) -> Float[Tensor, "replica dim dim"]:
    """∂²L(x), one reverse pass through the gradient for each of ``dim`` rows, all at once."""
    return jacobian(lambda p: gradient(oracle, {"x": p}), x["x"])


def jacobian(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "replica dim"]
) -> Float[Tensor, "replica value dim"]:
    """∂f(x) for ``function``: ``(replica, dim)`` → ``(replica, value)``, each replica by itself."""
    rows: Tensor = jacrev(lambda p: function(p).sum(dim=0))(x)
    return rows.movedim(0, 1)


def value_and_gradient(
    losses: Callable[[Tensor], Float[Tensor, "replica"]], x: Float[Tensor, "replica dim"]
) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica dim"]]:
    """The loss of every replica and its gradient."""

    def total(p: Tensor) -> tuple[Tensor, Tensor]:
        each = losses(p)
        return each.sum(), each

    gradients, (_, values) = grad_and_value(total, has_aux=True)(x)
    return torch.as_tensor(values), gradients
