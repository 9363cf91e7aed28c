"""Small tasks of kinds that differ, for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from lightball.workloads import Data, Workload

NUM_EXAMPLES = 250


def task(model: Callable[[], nn.Module], dtype: torch.dtype = torch.float32, name: str = "small") -> Workload:
    """Five classes of a random linear teacher in 20 dimensions; 250 training examples, 50 for validation and test."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(NUM_EXAMPLES + 100, 20, generator=draw, dtype=torch.float64)
    targets = (inputs @ torch.randn(20, 5, generator=draw, dtype=torch.float64)).argmax(dim=1)
    parts = zip(inputs.to(dtype).split([NUM_EXAMPLES, 50, 50]), targets.split([NUM_EXAMPLES, 50, 50]), strict=True)
    return Workload(name, model, *(Data(x, y) for x, y in parts))


def smooth(dtype: torch.dtype = torch.float32) -> Workload:
    """A perceptron without kinks, on which trajectories can be compared sharply."""
    return task(partial(_smooth, dtype), dtype)


def _smooth(dtype: torch.dtype) -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.SiLU(), nn.Linear(32, 5)).to(dtype)


def noisy() -> Workload:
    """Dropout, BatchNorm, and a weight under two names that is not contiguous in memory."""
    return task(Noisy, name="noisy")


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.3)
        self.middle = nn.Linear(16, 16)
        self.middle.weight = nn.Parameter(self.middle.weight.detach().t())
        self.again = nn.Linear(16, 16)
        self.again.weight = self.middle.weight
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.tanh(self.norm(self.first(x))))
        return self.last(torch.tanh(self.again(torch.tanh(self.middle(x)))))


class Recurrent(nn.Module):
    """Reads the 20 numbers as five words of four."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 16, batch_first=True)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x.reshape(-1, 5, 4))[0][:, -1])


class Branching(nn.Module):
    """Looks at values: halves what is large as often as it takes, and counts how often in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
        self.register_buffer("halved", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        while x.norm().item() > 10:
            x = x / 2
            self.halved = self.halved + 1
        return self.net(x)
