"""A workload: everything that defines a training task except how it is optimized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightball.errors import InputError
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
        draw: seed → training and validation data, where each seed of a study has a sample of its own, as in few-shot
            fine-tuning; a function of the seed alone, always of the same number of examples. Both rules of a pair get
            the same sample. ``train`` and ``validation`` are then one such sample, for whatever is found out before.
            None: all seeds share the data.
        measured: the examples on which the training loss of a curve is measured, where all that are trained on would
            take long. None: all of them. Training by the process engine only.
    """

    name: str
    model: Callable[[], nn.Module]
    train: Data
    validation: Data
    test: Data
    loss: PerExampleLoss = cross_entropy
    metric: PerExampleLoss = accuracy
    draw: Callable[[int], tuple[Data, Data]] | None = None
    measured: Data | None = None

    def of_seed(self, seed: int) -> Workload:
        """The workload with the data of a seed.

        Raises:
            InputError: ``draw`` gives other numbers of training examples than ``train`` has.
        """
        if self.draw is None:
            return self
        train, validation = self.draw(seed)
        if len(train) != len(self.train):
            raise InputError(
                f"draw({seed}) gives {len(train)} training examples, but train has {len(self.train)}: every seed needs "
                "as many, so that all runs take as many steps"
            )
        return replace(self, train=train, validation=validation, draw=None)
