"""Whether a workload can be trained, found out on two examples before anything long begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from itertools import zip_longest

import torch
from torch import Tensor, nn

from lightball.dynamics import Ensemble
from lightball.errors import InputError, reason_of
from lightball.oracles import MinibatchOracle, Sampling, build, check_vectorisable
from lightball.rules import canonical
from lightball.workloads.workload import Data, Workload, mode_of


def check(workload: object, together: bool = True) -> Workload:
    """The workload itself, if it can be trained.

    Tries two examples of each data set: shapes of loss and metric, a finite loss of the untrained model, a finite
    gradient for every trainable parameter; and where models are to be trained ``together``, that examples do not
    influence each other and that models trained at once compute what each computes alone. A model that is trained by
    itself may have batch statistics and dropout; it is evaluated in eval mode.

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
    if together:
        with _or_alone():
            check_vectorisable(model, workload.train.inputs[:2])
    with nullcontext() if together else mode_of(model, training=False):
        _check_all_scores(workload, model)
    if together:
        _check_start(workload, model)
        with _or_alone():
            _check_together(workload)
    else:
        _check_trains_alone(workload)
    return workload


@contextmanager
def _or_alone() -> Iterator[None]:
    """What cannot be trained together can be trained alone."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; or train each model by itself: --engine process") from error


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
            f"model() fails: {reason_of(error)} (model must be a function without arguments that makes one)"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model() returned a {type(model).__name__}, but must return a torch.nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter: at least one must have requires_grad=True")
    return model


def _check_all_scores(workload: Workload, model: nn.Module) -> None:
    for split, part in (("train", "loss"), ("train", "metric"), ("validation", "metric"), ("test", "metric")):
        _check_scores(workload, model, split, part)


def _check_scores(workload: Workload, model: nn.Module, split: str, part: str) -> None:
    """That the loss or the metric gives a number for each of two examples."""
    data: Data = getattr(workload, split)
    try:
        value = getattr(workload, part)(model(data.inputs[:2]), data.targets[:2])
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(f"{part}(outputs, targets) fails on two {split} examples: {reason_of(error)}") from error
    if not isinstance(value, Tensor) or value.shape != (2,):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"{part} gives {got} for 2 {split} examples, but must give one number for each, shape (2,): "
            "pass reduction='none'"
        )
    if not value.is_floating_point():
        raise InputError(f"{part} gives {value.dtype}, but must give floating-point numbers: append .float()")
    alone = [getattr(workload, part)(model(data.inputs[i : i + 1]), data.targets[i : i + 1]) for i in range(2)]
    if not torch.allclose(value, torch.cat(alone), rtol=1e-3, atol=1e-5, equal_nan=True):
        raise InputError(
            f"the {part} of one {split} example changes with the examples beside it, in the model or in the {part}: "
            "each must be computed alone (no normalisation over the batch)"
        )


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


def _check_trains_alone(workload: Workload) -> None:
    """That training can start: a finite loss of two examples, as computed while training, with a gradient."""
    inputs, targets = workload.train.inputs[:2], workload.train.targets[:2]
    with torch.random.fork_rng(devices=[]):  # dropout draws
        try:
            model = deepcopy(_make_model(workload)).train()  # batch statistics move
            loss = workload.loss(model(inputs), targets).mean()
        except InputError:
            raise
        except Exception as error:  # the user's own code runs here: anything can be raised
            raise InputError(f"the model fails on two training examples in train mode: {reason_of(error)}") from error
    if not loss.isfinite():
        raise InputError(
            f"the untrained model's loss is {loss:g} on two training examples, but must be finite: "
            "look at the inputs, the targets and the initial weights"
        )
    if not loss.requires_grad:
        raise InputError("the loss has no gradient: compute it from the model's outputs, without detach() or .item()")


def _check_together(workload: Workload) -> None:
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
