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


def buffer_names(optimizer: Optimizer, group: dict[str, Any]) -> set[str]:
    """Under which names a stand-in that has taken steps keeps tensors of its parameters' shapes."""
    return {
        name
        for p in group["params"]
        for name, value in _named(optimizer.state.get(p, {}))
        if isinstance(value, Tensor) and value.shape == p.shape
    }


def memory_now(optimizer: Optimizer, group: dict[str, Any], names: set[str]) -> tuple[bool, str | None]:
    """Whether a group whose steps have momentum has it in this run, as far as its state shows, and why not.

    Steps leave an entry in the state for each parameter: one without its buffer, or buffers of zeros, show that the
    run takes it away. No entry shows nothing: the first gradient may be still to come.
    """
    params = [p for p in group["params"] if p.requires_grad and p.numel()]
    entries = [dict(_named(optimizer.state[p])) for p in params if p in optimizer.state]
    buffers = [entry.get(name) for entry in entries for name in names]
    held = [buffer for buffer in buffers if isinstance(buffer, Tensor)]
    if held:
        if any(bool(buffer.any()) for buffer in held):
            return True, None
        return False, (
            "step has momentum, but its buffers are all zero now: reset outside step, or their gradients are zero"
        )
    if names and any(not entry or names & entry.keys() for entry in entries):
        return False, "step has momentum, but its buffers were taken out of the state: they are cleared outside step"
    if params and getattr(optimizer, "_opt_called", False):  # which schedulers leave
        return True, (
            "no parameter has a buffer, although steps were taken: momentum begins with the next gradient, or the "
            "state is cleared outside step"
        )
    return True, None


def _named(state: Any) -> Iterator[tuple[str, Any]]:
    """All values in a state and their names, however it nests them."""
    if isinstance(state, dict):
        for name, value in state.items():
            if isinstance(value, (dict, list, tuple)):
                yield from _named(value)
            else:
                yield str(name), value
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _named(value)


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
