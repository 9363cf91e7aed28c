"""Gradients of single examples: by vmap where the model allows it, else one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from copy import copy
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.probe.batches import Batch, num_examples, tensors
from lightball.probe.objective import Objective

if TYPE_CHECKING:
    from jaxtyping import Float

_MEMORY = 2**28  # bytes of gradients held at a time


def example_gradients(
    objective: Objective, batch: Batch, number: int = 0
) -> Iterator[tuple[Float[Tensor, "example"], Float[Tensor, "example dim"]]]:
    """(losses, gradients) of the batch's examples, a few examples at a time; the loss of one is that of a batch of one.

    Raises:
        InputError: the model normalises by statistics of the batch, so that single examples have no gradient of their
            own; or what :meth:`Objective.loss_and_gradient` raises.
    """
    _refuse_batch_statistics(objective)
    count = num_examples(batch)
    step = max(1, _MEMORY // (objective.dim * objective.dtype.itemsize))
    for start in range(0, count, step):
        part = sliced(batch, start, min(start + step, count))
        try:
            losses, gradients = _vectorised(objective, part, number)
        except (RuntimeError, ValueError, TypeError):  # such as control flow that depends on data
            losses, gradients = _one_by_one(objective, part, number)
        if not (losses.isfinite().all() and gradients.isfinite().all()):
            losses, gradients = _one_by_one(objective, part, number)  # says which and why
        yield losses, gradients


def sliced(batch: Batch, start: int, stop: int) -> Batch:
    """The examples start … stop − 1 of a batch; tensors that have no example axis stay whole."""
    count = num_examples(batch)
    return _mapped(batch, lambda t: t[start:stop] if t.ndim and len(t) == count else t)


def _vectorised(objective: Objective, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
    count, batch = num_examples(batch), objective.moved(batch)
    held = list(tensors(batch))
    axes = tuple(0 if t.ndim and len(t) == count else None for t in held)

    def loss(parts: list[Tensor], *values: Tensor) -> Tensor:
        ones = iter([v if axis is None else v[None] for v, axis in zip(values, axes, strict=True)])
        with objective.substituted(parts, number):
            value = objective.loss(objective.model, _mapped(batch, lambda _: next(ones)))
            return value.reshape(())

    gradient = torch.func.vmap(
        torch.func.grad_and_value(loss), in_dims=(None, *axes), randomness="different", chunk_size=None
    )
    gradients, losses = gradient([leaf.detach() for leaf in objective.leaves()], *held)
    return losses.detach().double().cpu(), torch.cat([g.detach().reshape(len(g), -1) for g in gradients], dim=1)


def _one_by_one(objective: Objective, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
    found = [objective.loss_and_gradient(sliced(batch, i, i + 1), number) for i in range(num_examples(batch))]
    losses = torch.tensor([loss for loss, _ in found], dtype=torch.float64)
    return losses, torch.stack([gradient for _, gradient in found])


def _refuse_batch_statistics(objective: Objective) -> None:
    for name, module in objective.model.named_modules():
        if uses_batch_statistics(module, objective.mode):
            raise InputError(
                f"per_example=True, but module '{name}' normalises by statistics of the batch, so that single examples "
                "have no gradient of their own: use mode='eval', or microbatches"
            )


def uses_batch_statistics(module: nn.Module, mode: str) -> bool:
    """Whether a module is a BatchNorm that uses the batch's statistics in this mode."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return False
    training = module.training if mode == "as is" else mode == "train"
    return training or module.running_mean is None


def _mapped(batch: Batch, f: Callable[[Tensor], Tensor]) -> Any:
    """The batch with ``f`` of each tensor in its place, in the order of ``tensors``; the batch itself stays."""
    if isinstance(batch, Tensor):
        return f(batch)
    if isinstance(batch, MutableMapping):
        copied = copy(batch)
        for key, value in batch.items():
            copied[key] = _mapped(value, f)
        return copied
    if isinstance(batch, tuple | list):
        values = [_mapped(value, f) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{x.name: _mapped(getattr(batch, x.name), f) for x in fields(batch) if x.init})
    return batch
