"""The rule of `rules.kernel` in place, for one tensor and for lists of them; tests hold both to the kernel.

A gradient is never written to: autograd may give two parameters one storage for their gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of one step, under the kernel's names; lr and weight_decay may be tensors of one number."""

    lr: Any
    momentum: float
    dampening: float
    weight_decay: Any
    nesterov: bool
    maximize: bool

    @property
    def decays(self) -> bool:
        return isinstance(self.weight_decay, Tensor) or self.weight_decay != 0


def numbers_of(group: Mapping[str, Any]) -> StepNumbers:
    """What a parameter group says; in the canonical convention the dampening is the momentum."""
    lr, momentum = group["lr"], group["momentum"]
    return StepNumbers(
        lr=lr.reshape(()) if isinstance(lr, Tensor) else lr,
        momentum=momentum,
        dampening=momentum if group["convention"] == "canonical" else group["dampening"],
        weight_decay=group["weight_decay"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
    )


def move(x: Tensor, g: Tensor, buffer: Tensor | None, numbers: StepNumbers, *, first: bool) -> None:
    """One step of x, and of the buffer where there is one, in place; `first` fills the buffer undampened.

    Shapes: all as x. Rounds as the plain path of `torch.optim.SGD` does. Temporaries: one of x's size with weight
    decay, one with maximize, one with Nesterov, else none.
    """
    direction = -g if numbers.maximize else g
    if numbers.decays:
        direction = _decayed(direction, x, numbers.weight_decay)
    if buffer is not None:
        if first:
            buffer.copy_(direction.detach())
        else:
            buffer.mul_(numbers.momentum).add_(direction, alpha=1 - numbers.dampening)
        direction = direction.add(buffer, alpha=numbers.momentum) if numbers.nesterov else buffer
    _descend(x, direction, numbers.lr)


def _decayed(g: Tensor, x: Tensor, weight_decay: Any) -> Tensor:
    if isinstance(weight_decay, Tensor) and weight_decay.requires_grad:
        return g.addcmul(x.clone(), weight_decay)  # x changes in place, the graph needs it as it was
    return g.add(x, alpha=weight_decay)


def _descend(x: Tensor, direction: Tensor, lr: Any) -> None:
    if isinstance(lr, Tensor) and lr.requires_grad:
        x.addcmul_(direction, lr, value=-1)
    elif isinstance(lr, Tensor) and torch.compiler.is_compiling():
        x.sub_(direction * lr)  # reading lr's value would compile it in
    else:
        x.add_(direction, alpha=-lr)


def move_all(xs: list[Tensor], gs: list[Tensor], buffers: list[Tensor], numbers: StepNumbers, *, first: bool) -> None:
    """`move` for tensors of one device and dtype by torch's foreach functions; `buffers` is empty without momentum."""
    directions = list(torch._foreach_neg(gs)) if numbers.maximize else gs
    if numbers.decays:
        directions = list(torch._foreach_add(directions, xs, alpha=numbers.weight_decay))
    if buffers:
        if first:
            torch._foreach_copy_(buffers, directions)
        else:
            torch._foreach_mul_(buffers, numbers.momentum)
            torch._foreach_add_(buffers, directions, alpha=1 - numbers.dampening)
        ahead = torch._foreach_add(directions, buffers, alpha=numbers.momentum) if numbers.nesterov else buffers
        directions = list(ahead)
    if isinstance(numbers.lr, Tensor) and torch.compiler.is_compiling():
        torch._foreach_sub_(xs, torch._foreach_mul(directions, numbers.lr))
    else:
        torch._foreach_add_(xs, directions, alpha=-numbers.lr)


def move_fused(
    xs: list[Tensor],
    gs: list[Tensor],
    buffers: list[Tensor],
    numbers: StepNumbers,
    *,
    first: bool,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """`move_all` by torch's fused kernel: one pass over memory, no temporaries.

    grad_scale and found_inf are a GradScaler's: the gradients are divided by the scale in place, and nothing moves
    where found_inf is not 0.
    """
    device = xs[0].device
    torch._fused_sgd_(
        xs,
        gs,
        buffers,
        weight_decay=numbers.weight_decay,
        momentum=(numbers.momentum or 1.0)
        if first
        else numbers.momentum,  # 0 would forbid the buffer, which `first` fills
        lr=numbers.lr,
        dampening=numbers.dampening,
        nesterov=numbers.nesterov,
        maximize=numbers.maximize,
        is_first_step=first,
        grad_scale=None if grad_scale is None else grad_scale.to(device),
        found_inf=None if found_inf is None else found_inf.to(device),
    )
