"""What an optimizer carries along: its momentum buffer and its last update, as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from lightball.errors import InputError
from lightball.probe.objective import Objective

if TYPE_CHECKING:
    from jaxtyping import Float

Carried = Mapping[str, Tensor | None] | Sequence[Tensor | None] | Tensor
"""A tensor for each trainable parameter, by name or in order (None: zeros), or all of them in one vector."""


def momentum_of(buffer: Carried | Optimizer, objective: Objective) -> Float[Tensor, "dim"]:
    """The canonical buffer m, an average of gradients: m ← βm + (1 − β)g.

    From ``torch.optim.SGD``, whose buffer is b ← μb + (1 − τ)g with momentum μ and dampening τ, it is
    m = (1 − μ)/(1 − τ) · b, in each parameter group by itself; parameters without a buffer have m = 0.

    Raises:
        InputError: an optimizer of another kind, one that maximises, one whose dampening is 1, or tensors that do not
            fit or are not finite.
    """
    if not isinstance(buffer, Optimizer):
        return vector_of(buffer, objective, "the momentum buffer")
    if not isinstance(buffer, SGD):
        raise InputError(
            f"buffer is an optimizer of type {type(buffer).__name__}, but momentum is read from torch.optim.SGD only: "
            "give a mapping from parameter names to the average of gradients instead"
        )
    found: dict[int, Tensor] = {}
    for group in buffer.param_groups:
        factor = _factor(group)
        for parameter in group["params"]:
            held = buffer.state.get(parameter, {}).get("momentum_buffer")
            if held is not None:
                found[id(parameter)] = held.detach() * factor
    return _finite(objective.flat([found.get(id(p)) for p in objective.parameters]), "the momentum buffer")


def vector_of(carried: Carried, objective: Objective, what: str) -> Float[Tensor, "dim"]:
    """One vector.

    Raises:
        InputError: it does not fit the trainable parameters, or is not finite.
    """
    if not isinstance(carried, Tensor):
        return _finite(objective.flat(carried), what)
    if carried.shape != (objective.dim,):
        raise InputError(
            f"{what} is a tensor of shape {tuple(carried.shape)}, but as one vector it must have shape "
            f"({objective.dim},): all trainable parameters in the order of model.named_parameters()"
        )
    return _finite(carried.detach().to(objective.device, objective.dtype), what)


def _factor(group: dict[str, float]) -> float:
    momentum, dampening = group["momentum"], group["dampening"]
    if group.get("maximize"):
        raise InputError("the optimizer has maximize=True, but a probe is for a loss to minimise: negate it")
    if momentum != 0 and dampening == 1:
        raise InputError("the optimizer has dampening 1, so that its buffer ignores gradients; it must be below 1")
    return (1 - momentum) / (1 - dampening) if momentum != 0 else 0.0


def _finite(vector: Float[Tensor, "dim"], what: str) -> Float[Tensor, "dim"]:
    if not torch.isfinite(vector).all():
        raise InputError(f"{what} is not finite, but must be: go back to a state before the run diverged")
    return vector
