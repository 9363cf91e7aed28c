"""A workload: everything that defines a training task except how it is optimized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightball.oracles import PerExampleLoss

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


def accuracy(outputs: Float[Tensor, "example class"], targets: Tensor) -> Float[Tensor, "example"]:
    """1 where the largest output is the target, else 0."""
    return (outputs.argmax(dim=-1) == targets).float()


def cross_entropy(outputs: Float[Tensor, "example class"], targets: Tensor) -> Float[Tensor, "example"]:
    """Cross-entropy of each example, in nats."""
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


@dataclass(frozen=True)
class Data:
    """Examples in memory, first axis the example: ``inputs`` and ``targets``."""

    inputs: Shaped[Tensor, "example ..."]
    targets: Shaped[Tensor, "example ..."]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Workload:
    """A task: a model, a loss and data.

    Args:
        name: how reports call it.
        model: makes the model to train. Its random weights come from torch's global generator, which is seeded for
            every seed of a study; a factory that loads pretrained weights starts every seed from them.
        train: the data whose loss is minimized.
        validation: the data for choosing learning rates when a study selects by validation accuracy.
        test: the data of the reported accuracy; never used to choose anything.
        loss: (outputs, targets) → one loss for each example; default cross-entropy.
        metric: (outputs, targets) → one score for each example, higher is better; default accuracy.
    """

    name: str
    model: Callable[[], nn.Module]
    train: Data
    validation: Data
    test: Data
    loss: PerExampleLoss = cross_entropy
    metric: PerExampleLoss = accuracy
