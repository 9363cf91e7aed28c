"""Hashes that tell workloads apart: of what they hold, and of what they compute."""

from __future__ import annotations

import hashlib
import json
import math

import torch
from torch import Tensor, nn

from lightball.errors import InputError, reason_of
from lightball.oracles import build
from lightball.workloads.undisturbed import copy_at_start, mode_of, one_thread, undisturbed
from lightball.workloads.workload import Data, Workload

_EVALUATED, _TRAINED = 256, 64
_DIGITS = 4


def identity(workload: Workload) -> str:
    """A hash of the data and of the initial weights at one seed, with their names and which of them are trained.

    Of data that are drawn for each seed, those of seed 0 are in it too; so is what the training loss is measured on.

    No arithmetic is in it but that of the initialisation, with one thread, so that every process finds the same one;
    16 hexadecimal digits.
    """
    with one_thread():
        model = build(workload.model, seed=0)
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    named = {f"model.{name} {trained.get(name)}": value for name, value in model.state_dict().items()}
    for split in ("train", "validation", "test"):
        data: Data = getattr(workload, split)
        named |= {f"{split}.inputs": data.inputs, f"{split}.targets": data.targets}
    if workload.draw is not None:
        for split, sample in zip(("train", "validation"), workload.draw(0), strict=True):
            named |= {f"drawn {split}.inputs": sample.inputs, f"drawn {split}.targets": sample.targets}
    if workload.measured is not None:
        named |= {"measured.inputs": workload.measured.inputs, "measured.targets": workload.measured.targets}
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in named.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(workload: Workload, together: bool = True) -> str:
    """A hash of :func:`identity` and of what the workload computes at the initial weights of one seed.

    It stands for the computation, whatever its code looks like: another loss, metric, model or data changes it. In it
    are the mean loss and metric in eval mode, over all training examples where models are to be trained ``together``,
    else over the first 256; and of the first 64 the mean loss and the norm of its gradient over all trainable
    parameters: in the modes in which the model is made, or, for a model that is trained by itself, in train mode with
    seeded generators, with what that forward pass does to the buffers.

    Numbers are computed with one thread and rounded to 4 significant digits, so that they depend neither on the number
    of threads nor, but for a value at the edge between two, on the machine. What changes all of them by less is not
    seen. Nothing of the workload or around it is changed. Cost: a forward pass over these examples, a backward pass
    over 64, and a copy of the model.

    Raises:
        InputError: the model, the loss or the metric fails on one of these examples, say on a label out of range.
    """
    with undisturbed(), one_thread():
        model = copy_at_start(workload.model)
        evaluated = _some(workload.train, len(workload.train) if together else _EVALUATED)
        try:
            numbers = _evaluated(workload, model, evaluated, width=1024 if together else _TRAINED)
        except Exception as error:  # the user's own code runs here: anything can be raised
            raise InputError(f"the loss or the metric fails on the training data: {reason_of(error)}") from error
        if not together:
            model.train()
        try:
            numbers |= _trained(workload, model, _some(workload.train, _TRAINED))
        except Exception as error:  # as above
            raise InputError(
                f"the model or the loss fails on the first {_TRAINED} training examples"
                f"{'' if together else ' in train mode'}: {reason_of(error)}"
            ) from error
    return hashlib.blake2b(json.dumps([identity(workload), numbers]).encode(), digest_size=8).hexdigest()


def _some(data: Data, num_examples: int) -> Data:
    return Data(data.inputs[:num_examples], data.targets[:num_examples])


def _evaluated(workload: Workload, model: nn.Module, data: Data, width: int) -> dict[str, str]:
    """Mean loss and metric in eval mode."""
    sums = {"loss": [0.0, 0.0], "metric": [0.0, 0.0]}  # of the values, and of their sizes
    with torch.no_grad(), mode_of(model, training=False):
        for inputs, targets in zip(torch.split(data.inputs, width), torch.split(data.targets, width), strict=True):
            outputs = model(inputs)
            for part, total in sums.items():
                values = getattr(workload, part)(outputs, targets).double()
                total[0] += values.sum().item()
                total[1] += values.abs().sum().item()
    return {part: _rounded(value / len(data), size / len(data)) for part, (value, size) in sums.items()}


def _trained(workload: Workload, model: nn.Module, data: Data) -> dict[str, str]:
    """Loss, gradient and change of the buffers in one pass as training makes it; the model keeps gradient and buffers.

    A backward pass into ``.grad`` rather than ``torch.autograd.grad``, which some checkpointed models do not bear.
    """
    model.zero_grad(set_to_none=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    losses = workload.loss(model(data.inputs), data.targets).double()
    if losses.requires_grad:
        losses.mean().backward()  # type: ignore[no-untyped-call]
    gradient = math.hypot(*(_norm(p.grad.to_dense()) for p in model.parameters() if p.grad is not None))
    return {
        "training loss": _rounded(losses.mean().item(), losses.abs().mean().item()),
        "gradient": _rounded(gradient, gradient),
        **_moved(before, dict(model.named_buffers())),
    }


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, str]:
    """The norm of the change of all floating-point buffers together, and the sum of that of counters.

    Only values that changed are in it, since large constants, or infinite ones as in masks, would hide the others.
    """
    steps, sizes, counted = [], [], 0.0
    for name, new in after.items():
        old = before.get(name)
        if old is None or old.shape != new.shape:  # made or resized in the forward pass
            old = torch.zeros_like(new)
        changed = new != old
        wide = torch.promote_types(new.dtype, torch.float64)
        values, change = new[changed].to(wide), new[changed].to(wide) - old[changed].to(wide)
        if new.is_floating_point() or new.is_complex():
            steps.append(_norm(change))
            sizes.append(_norm(values))
        else:
            counted += _norm(change, 1)
    step = math.hypot(*steps)
    # A small change of large values has fewer digits than either.
    return {"buffers": _rounded(step, max(step, 0.01 * math.hypot(*sizes))), "counters": str(counted)}


def _norm(values: Tensor, order: int = 2) -> float:
    wide = torch.promote_types(values.dtype, torch.float64)
    return float(torch.linalg.vector_norm(values.detach().to(wide), order))


def _rounded(value: float, size: float) -> str:
    """A number to 4 significant digits of ``size``, the mean size of what was added up to it: noise is 0."""
    if not math.isfinite(value) or not math.isfinite(size) or size < 1e-300:
        return str(value)
    unit = 10.0 ** (math.floor(math.log10(size)) - _DIGITS + 1)
    return f"{round(value / unit) * unit:.{_DIGITS - 1}e}"
