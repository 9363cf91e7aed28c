"""A forward and backward pass of which, but for the loss and the gradients, no trace is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer


@contextmanager
def undone(optimizer: Optimizer) -> Iterator[None]:
    """Afterwards torch's random numbers and the running statistics of all modules called are as they were before.

    The random numbers are those of the CPU and of the parameters' devices; Python's and NumPy's go on. What
    `torch.compile` made runs uncompiled inside: compiled, modules do not tell that they are called.
    """
    with _random_numbers_kept(optimizer), _running_statistics_kept(), torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _random_numbers_kept(optimizer: Optimizer) -> Iterator[None]:
    devices = {p.device for group in optimizer.param_groups for p in group["params"] if p.device.type != "cpu"}
    if not devices:
        with torch.random.fork_rng(devices=[]):
            yield
        return
    (kind,) = {device.type for device in devices}  # torch has one type of accelerator in a process
    with torch.random.fork_rng(devices=[device.index for device in devices], device_type=kind):
        yield


@contextmanager
def _running_statistics_kept() -> Iterator[None]:
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, _arguments: Any) -> None:
        if module.training and getattr(module, "running_mean", None) is not None:
            for buffer in module.buffers(recurse=False):
                kept.setdefault(id(buffer), (buffer, buffer.clone()))

    handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for buffer, before in kept.values():
                buffer.copy_(before)
