"""What the state of an optimizer in use shows: how large it is, and whether its buffers hold anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def state_bytes(optimizer: Optimizer, group: dict[str, Any]) -> float | None:
    """Bytes of state per parameter element of a group now, none if there is no state."""
    states = [optimizer.state[p] for p in group["params"] if p in optimizer.state]
    held = sum(tensor.numel() * tensor.element_size() for state in states for tensor in _tensors(state))
    return held / max(1, sum(p.numel() for p in group["params"])) if held else None


def bytes_to_come(optimizer: Optimizer, group: dict[str, Any], real: dict[str, Any]) -> float:
    """As :func:`state_bytes`, of a stand-in that has taken steps, in the real parameters' precision.

    Only tensors of at least a parameter's size count: the others do not grow with it.
    """
    held, size = 0.0, sum(p.numel() for p in group["params"])
    precise: float = sum(p.numel() * p.element_size() for p in real["params"])
    precise /= max(1, sum(p.numel() for p in real["params"]))
    for p in group["params"]:
        for tensor in _tensors(optimizer.state.get(p, {})):
            if tensor.ndim and tensor.numel() >= p.numel():
                held += tensor.numel() * (precise if tensor.dtype == torch.float64 else tensor.element_size())
    return float(held / max(1, size))


def missing_memory(optimizer: Optimizer, group: dict[str, Any]) -> str | None:
    """Why the momentum of a group does not act although steps were taken, as far as its state shows it."""
    params = [p for p in group["params"] if p.requires_grad and p.numel()]
    if not _has_stepped(optimizer) or not params:
        return None
    buffers = [b for p in params for b in _tensors(optimizer.state.get(p, {})) if b.shape == p.shape]
    if not buffers:
        return (
            "step has momentum, but after steps no parameter has a buffer: it is cleared outside step, or they never "
            "had a gradient"
        )
    if not any(bool(b.any()) for b in buffers):
        return "step has momentum, but its buffers are all zero now: reset outside step, or their gradients are zero"
    return None


def _has_stepped(optimizer: Optimizer) -> bool:
    """Whether a state or a scheduler shows a step; what is set up before the first one is no sign."""
    held = (value for p, state in optimizer.state.items() if isinstance(state, dict) for value in state.values())
    return (
        getattr(optimizer, "_opt_called", False)
        or any(value is None for value in held)
        or any(tensor.shape == p.shape for p, state in optimizer.state.items() for tensor in _tensors(state))
    )


def _tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of a state, however it nests them."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _tensors(value)
