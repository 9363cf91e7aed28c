"""Trials of a workload on two examples: outputs, scores, a gradient, and two models at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightball.dynamics import Ensemble
from lightball.errors import InputError, reason_of
from lightball.oracles import MinibatchOracle, Sampling, build
from lightball.rules import canonical
from lightball.workloads.workload import Data, Workload


def outputs_of(model: nn.Module, split: str, inputs: Tensor) -> Tensor:
    """What the model gives for one or two examples of a split, in the mode in which it is.

    Raises:
        InputError: it fails; where types of numbers are at fault, the message says which meet.
    """
    try:
        return model(inputs)  # type: ignore[no-any-return]
    except Exception as error:  # the user's own code runs here: anything can be raised
        mode = " in train mode" if model.training else ""
        raise InputError(
            f"the model fails on {_counted(inputs, split)}{mode}: {reason_of(error)}"
            f"{_remedy(model, inputs, reason_of(error))}"
        ) from error


def _counted(inputs: Tensor, split: str) -> str:
    return f"one {split} example" if len(inputs) == 1 else f"two {split} examples"


def _remedy(model: nn.Module, inputs: Tensor, reason: str) -> str:
    """What to do where inputs of this type and these weights do not go together, as the reason says or hides."""
    weights = next(p.dtype for p in model.parameters())
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if embeddings and not inputs.is_floating_point() and "out of range" in reason:
        rows = min(module.num_embeddings for module in embeddings)
        return f" (tokens must be from 0 to {rows - 1}, nn.Embedding has {rows} rows; these are up to {inputs.max()})"
    if "type" not in reason:
        return ""
    if embeddings and inputs.is_floating_point():
        return f" (the inputs are {inputs.dtype}, but nn.Embedding takes whole numbers: give inputs.long())"
    if not inputs.is_floating_point():
        return (
            f" (the inputs are {inputs.dtype}, the weights {weights}: give inputs.to({weights}), or begin the model "
            "with nn.Embedding if they are tokens)"
        )
    if inputs.dtype != weights:
        return (
            f" (the inputs are {inputs.dtype}, the weights {weights}: give inputs.to({weights}), or make the model "
            f"with .to({inputs.dtype}))"
        )
    return ""


def scores_of(workload: Workload, model: nn.Module, split: str, part: str, examples: slice) -> Tensor:
    """The loss or the metric of one or two examples.

    Raises:
        InputError: it fails, or does not give a floating-point number for each.
    """
    data: Data = getattr(workload, split)
    inputs, targets = data.inputs[examples], data.targets[examples]
    outputs, num = outputs_of(model, split, inputs), len(inputs)
    try:
        value = getattr(workload, part)(outputs, targets)
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(f"{part}(outputs, targets) fails on {_counted(inputs, split)}: {reason_of(error)}") from error
    if not isinstance(value, Tensor) or value.shape != (num,):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"{part} gives {got} for {num} {split} example{'s' if num > 1 else ''}, but must give one number for "
            f"each, shape ({num},): pass reduction='none'{' and keep the first axis' if num == 1 else ''}"
        )
    if not value.is_floating_point():
        raise InputError(f"{part} gives {value.dtype}, but must give floating-point numbers: append .float()")
    return value


def check_start(workload: Workload, model: nn.Module, alone: bool = False) -> None:
    """That training can start: a finite loss, and a finite gradient of every trainable parameter.

    A model that is trained ``alone`` may have parameters that the loss does not depend on.
    """
    loss = scores_of(workload, model, "train", "loss", slice(0, 2))
    if not loss.isfinite().all():
        raise InputError(
            f"the untrained model's loss is {loss.mean():g} on two training examples, but must be finite: "
            "look at the inputs, the targets and the initial weights"
        )
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    try:
        if loss.requires_grad:
            loss.mean().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(
            f"the loss has a value but its gradient fails: {reason_of(error)} (give loss, targets and outputs one type "
            "of number, and change nothing in place that the gradient needs)"
        ) from error
    if alone and all(p.grad is None for p in trained.values()):
        raise InputError("the loss has no gradient: compute it from the model's outputs, without detach() or .item()")
    for name, p in trained.items():
        if p.grad is None and not alone:
            raise InputError(
                f"the loss does not depend on the parameter '{name}': leave it out, or freeze it with "
                "requires_grad_(False)"
            )
        if p.grad is not None and not p.grad.to_dense().isfinite().all():
            raise InputError(f"the gradient of '{name}' is not finite at the initial weights: look at the loss there")


def check_together(workload: Workload) -> None:
    """That two models in one ensemble give the losses that each gives alone, and that their step can be traced."""
    inputs, targets = workload.train.inputs[:2], workload.train.targets[:2]
    sampling = Sampling(2, batch_size=2)
    oracle = MinibatchOracle(workload.model, workload.loss, inputs, targets, sampling)
    try:
        ensemble = Ensemble(oracle, [1, 2], canonical(1e-3, 0.9))
        together = ensemble.measure(oracle.loss)
        ensemble.advance(1)
    except InputError:
        raise
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(
            f"the loss cannot be traced: {reason_of(error)} (avoid control flow on tensor values and .item() in it)"
        ) from error
    with torch.no_grad():
        alone = [workload.loss(build(workload.model, seed)(inputs), targets).mean() for seed in (1, 2)]
    if not torch.allclose(together, torch.stack(alone).to(together.dtype), rtol=1e-3, atol=1e-5):
        raise InputError(
            "models trained at once do not give the losses that each gives alone: keep what differs between seeds in "
            "parameters, and change no state in forward"
        )
