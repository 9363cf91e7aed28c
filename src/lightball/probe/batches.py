"""Batches of any nesting: tensors in tuples, lists, dictionaries and dataclasses, examples first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

from lightball.errors import InputError

Batch = Any
"""Tensors with the example as first axis, nested in tuples, lists, mappings or dataclasses."""


def num_examples(batch: Batch) -> int:
    """Length of the first axis of the batch's first tensor.

    Raises:
        InputError: a batch without examples, or without tensors that have an example axis.
    """
    first = next(tensors(batch), None)
    if first is None or first.ndim == 0:
        what = f"is a {type(batch).__name__} without tensors" if first is None else "begins with a tensor without axes"
        raise InputError(f"a batch {what}, but must hold tensors whose first axis is the example")
    if len(first) == 0:
        raise InputError("a batch has no examples, but must have at least one: leave it out")
    return len(first)


def tensors(batch: Batch) -> Iterator[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from tensors(value)
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            yield from tensors(getattr(batch, field.name))


def moved(batch: Batch, dtype: torch.dtype, device: torch.device) -> Batch:
    """The batch on ``device``, its floating tensors of ``dtype``; the batch itself stays as it is."""
    if isinstance(batch, Tensor):
        # Autograd cannot save what was made in inference mode.
        usable = batch.clone() if batch.is_inference() else batch
        return usable.to(device, dtype if batch.is_floating_point() else batch.dtype)
    if isinstance(batch, MutableMapping):
        copied = copy(batch)  # keeps types such as the batches of Hugging Face tokenizers, which have attributes
        for key, value in batch.items():
            copied[key] = moved(value, dtype, device)
        return copied
    if isinstance(batch, tuple | list):
        values = [moved(value, dtype, device) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values_of = {f.name: moved(getattr(batch, f.name), dtype, device) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **values_of)
    return batch
