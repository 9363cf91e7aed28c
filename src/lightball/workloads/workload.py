"""A workload: everything that defines a training task except how it is optimized."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
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

    Tries two examples of each data set: shapes of loss and metric, a finite loss of the untrained model, a finite
    gradient for every trainable parameter, and that many copies of the model can be trained at once.

    Raises:
        InputError: one line that says which part does not fit and what is required.
    """
    if not isinstance(workload, Workload):
        raise InputError(
            f"the task is a {type(workload).__name__}, but must be a lightball.Workload: return Workload(...)"
        )
    for split in ("train", "validation", "test"):
        _check_data(split, getattr(workload, split))
    model = _make_model(workload)
    check_vectorisable(model, workload.train.inputs[:2])
    for split, part in (("train", "loss"), ("train", "metric"), ("validation", "metric"), ("test", "metric")):
        _check_scores(workload, model, split, part)
    _check_start(workload, model)
    return workload


def fingerprint(workload: Workload) -> str:
    """A hash of the data, of the initial weights at one seed, and of the loss and metric on a few examples.

    Two workloads with equal fingerprints train alike, whatever their code looks like; 16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    model = build(workload.model, seed=0)
    few = Data(workload.train.inputs[:32], workload.train.targets[:32])
    with torch.no_grad():
        outputs = model(few.inputs)
        scores = [fn(outputs, few.targets) for fn in (workload.loss, workload.metric)]
    splits = [t for data in (workload.train, workload.validation, workload.test) for t in (data.inputs, data.targets)]
    for tensor in [*splits, *model.state_dict().values(), *scores]:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_data(split: str, data: object) -> None:
    if not isinstance(data, Data):
        raise InputError(f"{split} is a {type(data).__name__}, but must be lightball.Data(inputs, targets)")
    for part in ("inputs", "targets"):
        value = getattr(data, part)
        if not isinstance(value, Tensor) or value.ndim == 0:
            kind = "single number" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"{split}.{part} is a {kind}, but must be a torch.Tensor, examples first: "
                "convert it with torch.as_tensor"
            )
    if len(data.inputs) != len(data.targets) or len(data) < 2:
        raise InputError(
            f"{split} has {len(data.inputs)} inputs and {len(data.targets)} targets: there must be equally many, "
            "and at least 2"
        )


def _make_model(workload: Workload) -> nn.Module:
    try:
        model = build(workload.model, seed=0)
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(
            f"model() fails: {_reason(error)} (model must be a function without arguments that makes one)"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model() returned a {type(model).__name__}, but must return a torch.nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter: at least one must have requires_grad=True")
    return model


def _check_scores(workload: Workload, model: nn.Module, split: str, part: str) -> None:
    """That the loss or the metric gives a number for each of two examples."""
    data: Data = getattr(workload, split)
    try:
        value = getattr(workload, part)(model(data.inputs[:2]), data.targets[:2])
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(f"{part}(outputs, targets) fails on two {split} examples: {_reason(error)}") from error
    if not isinstance(value, Tensor) or value.shape != (2,):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"{part} gives {got} for 2 {split} examples, but must give one number for each, shape (2,): "
            "pass reduction='none'"
        )
    if not value.is_floating_point():
        raise InputError(f"{part} gives {value.dtype}, but must give floating-point numbers: append .float()")


def _check_start(workload: Workload, model: nn.Module) -> None:
    """That training can start: a finite loss, and a finite gradient of every trainable parameter."""
    loss = workload.loss(model(workload.train.inputs[:2]), workload.train.targets[:2])
    if not loss.isfinite().all():
        raise InputError(
            f"the untrained model's loss is {loss.mean():g} on two training examples, but must be finite: "
            "look at the inputs, the targets and the initial weights"
        )
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    reached = loss.requires_grad
    gradients = torch.autograd.grad(loss.sum(), list(trained.values()), allow_unused=True) if reached else ()
    for name, gradient in zip_longest(trained, gradients):
        if gradient is None:
            raise InputError(
                f"the loss does not depend on the parameter '{name}': leave it out, or freeze it with "
                "requires_grad_(False)"
            )
        if not gradient.isfinite().all():
            raise InputError(f"the gradient of '{name}' is not finite at the initial weights: look at the loss there")


def _reason(error: Exception) -> str:
    """The first line of what the user's code raised."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
