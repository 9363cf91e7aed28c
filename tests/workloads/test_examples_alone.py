"""What would let examples or models that are computed together influence each other is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightball.errors import InputError
from lightball.workloads import Data, Workload, check, fingerprint, identity


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def data(seed: int) -> Data:
    draw = torch.Generator().manual_seed(seed)
    return Data(torch.randn(20, 4, generator=draw), torch.randint(3, (20,), generator=draw))


TASK = Workload("task", perceptron, data(1), data(2), data(3))


def per_example(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets, reduction="none")


def self_normalised(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = per_example(outputs, targets)
    return losses / losses.mean().detach()


def branching(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = per_example(outputs, targets)
    return 2 * losses if losses.mean() > 100 else losses


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(4, 4))
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x @ self.projection)


class Hidden(nn.Module):
    """Keeps what differs between seeds out of sight, in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = torch.randn(4, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x @ self.projection)


def test_an_ordinary_task_is_accepted() -> None:
    assert check(TASK) is TASK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": self_normalised}, "the loss of one train example changes with the examples beside it"),
        ({"metric": self_normalised}, "the metric of one train example changes with the examples beside it"),
        ({"loss": branching}, "the loss cannot be traced: .*avoid control flow on tensor values"),
        ({"model": lambda: nn.Sequential(Centred(), perceptron())}, "changes with the examples beside it"),
        ({"model": Projected}, "'projection' is a frozen parameter or a buffer but differs between seeds"),
        ({"model": Hidden}, "models trained at once do not give the losses that each gives alone"),
        (
            {"model": lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))},
            r"module '1' \(BatchNorm1d\) normalises by the batch",
        ),
    ],
)
def test_refused(change: dict[str, Callable[..., object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(replace(TASK, **change))  # type: ignore[arg-type]


def frozen_first() -> nn.Module:
    model = perceptron()
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets, weight=torch.tensor([1.0, 1.0, 2.0]), reduction="none")


def test_identity_knows_data_weights_and_what_is_trained() -> None:
    assert identity(TASK) == identity(replace(TASK))
    others = [replace(TASK, model=frozen_first), replace(TASK, test=data(4))]
    assert len({identity(task) for task in (TASK, *others)}) == 3
    assert identity(replace(TASK, loss=weighted)) == identity(TASK)


def test_fingerprint_knows_the_loss_too() -> None:
    others = [replace(TASK, model=frozen_first), replace(TASK, loss=weighted), replace(TASK, metric=per_example)]
    assert len({fingerprint(task) for task in (TASK, *others)}) == 4
