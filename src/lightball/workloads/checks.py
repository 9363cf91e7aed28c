"""Whether a workload can be trained, found out on two examples before anything long begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from lightball.errors import InputError, reason_of
from lightball.oracles import build, check_vectorisable
from lightball.workloads.trials import check_start, check_together, outputs_of, scores_of
from lightball.workloads.undisturbed import copy_at_start, mode_of, undisturbed
from lightball.workloads.workload import Data, Workload


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
    if workload.measured is not None:
        _check_measured(workload, together)
    if workload.draw is not None:
        _check_draw(workload, together)
    with undisturbed():
        model = _make_model(workload)
        with mode_of(model, training=False), torch.no_grad():
            for split in ("train", "validation", "test"):
                outputs_of(model, split, getattr(workload, split).inputs[:2])
        if together:
            with _or_alone():
                check_vectorisable(model, workload.train.inputs[:2])
        with nullcontext() if together else mode_of(model, training=False), torch.no_grad():
            for split, part in (("train", "loss"), ("train", "metric"), ("validation", "metric"), ("test", "metric")):
                _check_scores(workload, model, split, part)
        if together:
            check_start(workload, model)
            with _or_alone():
                check_together(workload)
        else:
            check_start(workload, model.train(), alone=True)
    return workload


@contextmanager
def _or_alone() -> Iterator[None]:
    """What cannot be trained together can be trained alone."""
    try:
        yield
    except InputError as error:
        reason = str(error)
        if "batching rule not implemented" in reason.lower():  # vmap's words, as for recurrent layers
            module = reason.partition(" cannot be vectorised")[0]
            reason = (
                f"{module} is of a layer type without a batching rule in torch.func.vmap, unsupported where many "
                "models are trained at once: use another layer"
            )
        raise InputError(f"{reason}; or train each model by itself: --engine process") from error


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
    if (example := _first_not_finite(data.inputs)) is not None:
        raise InputError(
            f"{split}.inputs has values that are not finite (nan or inf), first in example {example}: repair these "
            "examples or leave them out"
        )


def _check_measured(workload: Workload, together: bool) -> None:
    _check_data("measured", workload.measured)
    assert workload.measured is not None
    for part in ("inputs", "targets"):
        value, trained = getattr(workload.measured, part), getattr(workload.train, part)
        if value.shape[1:] != trained.shape[1:] or value.dtype != trained.dtype:
            raise InputError(
                f"measured.{part} are {value.dtype} of shape {tuple(value.shape)}, train.{part} {trained.dtype} of "
                f"shape {tuple(trained.shape)}: measured must hold some of the training examples"
            )
    if workload.draw is not None:
        raise InputError(
            "the task has both draw and measured, which would be no part of the sample of a seed: leave measured out"
        )
    if together:
        raise InputError(
            "the task measures its training loss on some examples, but many models trained at once measure it on all: "
            "leave measured out, or train each model by itself, --engine process"
        )


def _check_draw(workload: Workload, together: bool) -> None:
    if together:
        raise InputError(
            "the task draws other data for each seed, which many models trained at once cannot: train each model by "
            "itself, --engine process"
        )
    try:
        drawn = workload.of_seed(0)
    except InputError:
        raise
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(
            f"draw(0) fails: {reason_of(error)} (draw must be a function of a seed that returns training and "
            "validation data)"
        ) from error
    for split in ("train", "validation"):
        _check_data(f"{split} of draw(0)", getattr(drawn, split))


def _first_not_finite(inputs: Tensor) -> int | None:
    width = 4096  # a mask of all examples at once would take a quarter of their memory
    for i, part in enumerate(torch.split(inputs, width) if inputs.is_floating_point() else ()):
        finite = part.isfinite().flatten(1).all(dim=1) if part.ndim > 1 else part.isfinite()
        if not finite.all():
            return i * width + int(finite.long().argmin())
    return None


def _make_model(workload: Workload) -> nn.Module:
    try:
        model = build(workload.model, seed=0)
    except InputError:
        raise
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(
            f"model() fails: {reason_of(error)} (model must be a function without arguments that makes one)"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model() returned a {type(model).__name__}, but must return a torch.nn.Module")
    if any(map(nn.parameter.is_lazy, model.parameters())):
        raise InputError("the model has parameters without a shape yet: call it once on an example inside model()")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter: at least one must have requires_grad=True")
    return copy_at_start(workload.model)


def _check_scores(workload: Workload, model: nn.Module, split: str, part: str) -> None:
    """That the loss or the metric gives a number for each of two examples, whether together or alone."""
    together = scores_of(workload, model, split, part, slice(0, 2))
    alone = [scores_of(workload, model, split, part, slice(i, i + 1)) for i in range(2)]
    if not torch.allclose(together, torch.cat(alone), rtol=1e-3, atol=1e-5, equal_nan=True):
        raise InputError(
            f"the {part} of one {split} example changes with the examples beside it, in the model or in the {part}: "
            "each must be computed alone (no normalisation over the batch)"
        )
