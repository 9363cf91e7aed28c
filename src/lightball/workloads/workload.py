"""A workload: everything that defines a training task except how it is optimized."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightball.errors import InputError, reason_of
from lightball.oracles import PerExampleLoss, build

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


def identity(workload: Workload) -> str:
    """A hash of the data and of the initial weights at one seed, with their names and which of them are trained.

    No arithmetic is in it, so that every process finds the same one; 16 hexadecimal digits.
    """
    model = build(workload.model, seed=0)
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    named = {f"model.{name} {trained.get(name)}": value for name, value in model.state_dict().items()}
    for split in ("train", "validation", "test"):
        data: Data = getattr(workload, split)
        named |= {f"{split}.inputs": data.inputs, f"{split}.targets": data.targets}
    return _hash(named)


def fingerprint(workload: Workload) -> str:
    """A hash of :func:`identity` and of the loss and metric of every training example at the initial weights.

    The model is in eval mode. It stands for what a workload computes, whatever its code looks like: another loss,
    metric, model or data changes it. Two models that agree in names, weights, trained parameters and on all training
    examples count as equal.

    Raises:
        InputError: the model, the loss or the metric fails on some example, say on a label out of range.
    """
    model = build(workload.model, seed=0)
    named: dict[str, Tensor] = {}
    with torch.no_grad(), mode_of(model, training=False):
        pairs = zip(torch.split(workload.train.inputs, 1024), torch.split(workload.train.targets, 1024), strict=True)
        for i, (inputs, targets) in enumerate(pairs):
            try:
                outputs = model(inputs)
                named |= {
                    f"loss {i}": workload.loss(outputs, targets),
                    f"metric {i}": workload.metric(outputs, targets),
                }
            except Exception as error:  # the user's own code runs here: anything can be raised
                raise InputError(f"the loss or the metric fails on the training data: {reason_of(error)}") from error
    return _hash({identity(workload): torch.empty(0), **named})


@contextmanager
def mode_of(model: nn.Module, training: bool) -> Iterator[None]:
    """Inside, the model trains or evaluates; every module comes out in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _hash(named: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in named.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
