"""A small training to be monitored: dropout, BatchNorm, and a shuffle by the global generator."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Loop = Callable[..., Any]


class Net(nn.Module):
    """Draws masks, and keeps running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def examples(count: int = 256) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 8, generator=random)
    targets = (inputs[:, :3] + torch.randn(count, 3, generator=random)).argmax(dim=1)
    return inputs, targets


def seed_all(seed: int = 0) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def trained(
    num_steps: int,
    monitored: Callable[[nn.Module, torch.optim.Optimizer], Any] | None,
    *,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    batch_size: int = 16,
    **settings: Any,
) -> tuple[nn.Module, torch.optim.Optimizer, list[float], Any]:
    """The model, the optimizer, the losses of the steps and the monitor of a plain loop."""
    seed_all()
    model = Net()
    optimizer = make(model.parameters(), **(settings or {"lr": 0.05, "momentum": 0.9}))
    monitor = monitored(model, optimizer) if monitored else None
    inputs, targets = examples()
    losses: list[float] = []
    while len(losses) < num_steps:
        for rows in torch.randperm(len(inputs)).split(batch_size):
            if len(losses) == num_steps:
                break
            batch = inputs[rows], targets[rows]
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if monitor is not None:
                monitor.step(batch)
    return model, optimizer, losses, monitor


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """All state that a monitor could have changed: tensors as bytes, modes, hooks, generators."""
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    generators = (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    modes = [module.training for module in model.modules()]
    hooks = [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()]
    return [
        [t.numpy().tobytes() for t in tensors],
        generators,
        modes,
        hooks,
        sorted(vars(model)),
        torch.is_grad_enabled(),
    ]
