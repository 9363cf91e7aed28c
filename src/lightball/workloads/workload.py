"""A workload: everything that defines a training task except how it is optimized."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.oracles import PerExampleLoss, build, check_vectorisable

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


def check(workload: object) -> Workload:
    """The workload itself, if it can be trained.

    Tries two examples of each data set: shapes of loss and metric, a finite loss of the untrained model, finite
    gradients, and that many copies of the model can be trained at once.

    Raises:
        InputError: one line that says which part does not fit and what is required.
    """
    if not isinstance(workload, Workload):
        raise InputError(
            f"the task is a {type(workload).__name__}, but must be a lightball.Workload: return Workload(...)"
        )
    for split in ("train", "validation", "test"):
        _check_data(split, getattr(workload, split))
    model = build(workload.model, seed=0)
    if not isinstance(model, nn.Module):
        raise InputError(f"model() returned a {type(model).__name__}, but must return a torch.nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter: at least one must have requires_grad=True")
    few = Data(workload.train.inputs[:2], workload.train.targets[:2])
    check_vectorisable(model, few.inputs)
    _check_loss(workload, model, few)
    return workload


def fingerprint(workload: Workload) -> str:
    """A hash of the data, of the initial weights at one seed, and of the loss and metric on a few examples.

    Two workloads with equal fingerprints train alike, whatever their code looks like; 16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    model = build(workload.model, seed=0)
    few = workload.train.inputs[:2]
    with torch.no_grad():
        outputs = model(few)
        scores = [fn(outputs, workload.train.targets[:2]) for fn in (workload.loss, workload.metric)]
    splits = [t for data in (workload.train, workload.validation, workload.test) for t in (data.inputs, data.targets)]
    for tensor in [*splits, *model.state_dict().values(), *scores]:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_data(split: str, data: object) -> None:
    if not isinstance(data, Data):
        raise InputError(f"{split} is a {type(data).__name__}, but must be lightball.Data(inputs, targets)")
    for part in ("inputs", "targets"):
        if not isinstance(getattr(data, part), Tensor):
            kind = type(getattr(data, part)).__name__
            raise InputError(f"{split}.{part} is a {kind}, but must be a torch.Tensor: convert it with torch.as_tensor")
    if len(data.inputs) != len(data.targets) or len(data) < 2:
        raise InputError(
            f"{split} has {len(data.inputs)} inputs and {len(data.targets)} targets: there must be equally many, "
            "and at least 2"
        )


def _check_loss(workload: Workload, model: nn.Module, few: Data) -> None:
    outputs = model(few.inputs)
    for part in ("loss", "metric"):
        try:
            value = getattr(workload, part)(outputs, few.targets)
        except Exception as error:  # the user's own code runs here: anything can be raised
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"{part}(outputs, targets) fails on two training examples: {reason}") from error
        if not isinstance(value, Tensor) or value.shape != (2,):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"{part} gives {got} for 2 examples, but must give one number for each, shape (2,): "
                "pass reduction='none'"
            )
    loss = workload.loss(outputs, few.targets)
    if not loss.isfinite().all():
        raise InputError(
            f"the untrained model's loss is {loss.mean():g} on two training examples, but must be finite: "
            "look at the inputs, the targets and the initial weights"
        )
    torch.autograd.backward(loss.sum())
    for name, p in model.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            raise InputError(f"the gradient of '{name}' is not finite at the initial weights: look at the loss there")
