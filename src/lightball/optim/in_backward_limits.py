"""What cannot be combined with updates during backward, found as early as it can be known and refused in one line."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim.clipping import norm_of

# How far two passes over the same batch may differ: half a dozen units in the last place of bfloat16.
_SAME_NORM = 0.02


def require_one_process() -> None:
    """Refuse data parallelism, which averages gradients after the hooks have run."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    processes = torch.distributed.get_world_size()
    if processes > 1:
        raise InputError(
            f"in_backward=True in one of {processes} processes, which would move its weights by its own gradients "
            "before they are averaged; use in_backward=False, with fully_shard (FSDP) to save memory"
        )


def require_no_grad_scaler(references_before: int | None = None) -> int:
    """Refuse if this process has a GradScaler in use: in backward the gradients are still scaled.

    Nothing but the object itself tells of it before the weights have moved, so the garbage collector is asked, which
    looks at every object there is. Returns how many references there are to the class. Each scaler has one,
    so that while they are as many as `references_before` there is no new one; counting takes a microsecond.
    """
    references = sum(map(sys.getrefcount, _kinds_of_scalers()))
    if references == references_before:
        return references
    if _has_grad_scaler() and gc.collect() >= 0 and _has_grad_scaler():  # garbage does not count
        raise scaler_refused()
    return references


def _kinds_of_scalers() -> list[type]:
    kinds: list[type] = [GradScaler]
    for kind in kinds:  # which grows
        kinds += kind.__subclasses__()
    return kinds


def _has_grad_scaler() -> bool:
    kinds = _kinds_of_scalers()
    return any(type(found) in kinds and found.is_enabled() for found in gc.get_referrers(*kinds))


def scaler_refused() -> InputError:
    """The refusal of a GradScaler."""
    return InputError(
        "in_backward=True with a GradScaler, whose scaled gradients would move the weights before it can divide or "
        "skip them; use autocast to bfloat16, which needs none, or in_backward=False (`del` a scaler that is not used)"
    )


def require_dtype(parameter: Tensor) -> None:
    """Refuse float16 weights, whose gradients underflow without a scale."""
    if parameter.dtype == torch.float16:
        raise InputError(
            "in_backward=True with float16 parameters, whose gradients need a loss scale, which cannot be undone in "
            "backward; use bfloat16 or float32 parameters, or in_backward=False"
        )


def require_gradient(parameter: Tensor) -> None:
    """Refuse a gradient that another has taken, or that is to be differentiated itself."""
    if parameter.grad is None:
        raise InputError(
            f"the gradient of a parameter of shape {tuple(parameter.shape)} was freed by another hook before this "
            "one; a parameter can have one optimizer with in_backward=True: `del` the other, or its reference"
        )
    if parameter.grad.requires_grad:
        raise InputError(
            "backward(create_graph=True) with in_backward=True, which would change weights that the graph needs; "
            "use torch.autograd.grad for the inner gradient, or in_backward=False"
        )


def require_first(parameter: Tensor, *, again: bool) -> None:
    """Refuse a second gradient of one parameter in one step."""
    if again:
        raise InputError(
            f"a parameter of shape {tuple(parameter.shape)} got a second gradient before step(), after it was moved "
            "by the first; with in_backward=True call step() after each backward, or zero_grad() if it failed, make "
            "all backward passes but the last inside `with optimizer.accumulating():`, and checkpoint shared weights "
            "with use_reentrant=False"
        )


def require_gone(parameter: Tensor, *, taken: bool) -> None:
    """Refuse at the step's end a gradient of a parameter that has had one in this step."""
    if taken:
        raise InputError(
            f"a parameter of shape {tuple(parameter.shape)} has a gradient in step() after it was moved in backward; "
            "with in_backward=True nothing else may write .grad: no DistributedDataParallel, and accumulating() "
            "before the last backward, not after it"
        )


def require_no_gradients(optimizer: Optimizer) -> None:
    """Refuse gradients from before a closure that is to run twice."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                raise InputError(
                    f"a parameter of shape {tuple(parameter.shape)} has a gradient from before step(closure); with "
                    "clipping='exact' accumulate inside the closure, which starts with zero_grad() and runs twice"
                )


def require_same_closure(parameter: Tensor, rehearsed: Mapping[int, Tensor | None] | None, *, first: bool) -> None:
    """Refuse clipping='exact' outside step(closure), or with a closure whose second run gives another gradient.

    The second is looked at for the first gradient of the pass, before anything has moved.
    """
    if rehearsed is None:
        raise InputError(
            "backward outside step(closure) with clipping='exact', which makes two passes; put zero_grad, forward and "
            "backward into a closure and call step(closure), or use clipping='previous'"
        )
    if not first or parameter.grad is None:
        return
    expected = rehearsed.get(id(parameter))
    before, now = math.nan if expected is None else float(expected), float(norm_of(parameter.grad))
    if expected is None or abs(before - now) > _SAME_NORM * max(before, now):
        raise InputError(
            f"a gradient's norm was {before:.4g} when the closure first ran and {now:.4g} the second time; "
            "clipping='exact' needs the same loss twice: draw the batch outside the closure, and no random numbers "
            "but torch's"
        )
