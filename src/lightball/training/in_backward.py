"""Steps whose update is made in the backward pass, so that one gradient lives at a time instead of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightball.optim import SGD
from lightball.optim.tied import sum_in_place
from lightball.rules import State
from lightball.training.recipe import Recipe
from lightball.training.updates import by_decay

Passes = Callable[[], Iterable[tuple[Tensor, float]]]
"""Makes the forward passes of a step, one after the other: the loss, with its graph, and its weight in the gradient."""


@dataclass(frozen=True)
class InBackward:
    """``optimizer`` updates the parameters; ``arrived`` are those, by id, that had a gradient in the step at hand."""

    optimizer: SGD
    arrived: set[int]

    def step(self, passes: Passes, num_passes: int, effective_lr: float) -> list[Tensor]:
        """A step, which is made by the last of the backward passes; returns the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = effective_lr
        losses: list[Tensor] = []

        def closure() -> None:  # made twice for clipping
            losses.clear()
            self.arrived.clear()
            for loss, weight in passes():
                losses.append(loss.detach())
                last = len(losses) == num_passes
                with nullcontext() if last else self.optimizer.accumulating():
                    (loss if weight == 1 else loss * weight).backward()  # type: ignore[no-untyped-call]
            self._give_zeros()

        self.optimizer.step(closure)
        return losses

    def _give_zeros(self) -> None:
        """To parameters that the loss does not depend on: weight decay and momentum move them too."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if id(p) not in self.arrived:
                    p.grad = torch.zeros_like(p)


def update_in_backward(
    model: nn.Module, trained: Mapping[str, nn.Parameter], momentum: Mapping[str, State], recipe: Recipe
) -> InBackward:
    """Hooks on the parameters of a model; ``momentum`` holds the buffers, which are updated in place.

    Raises:
        InputError: gradients that need a scale, several processes.
    """
    arrived: set[int] = set()
    for p in trained.values():  # ahead of the optimizer's hooks, which take the gradient away
        p.register_post_accumulate_grad_hook(lambda p: arrived.add(id(p)))  # type: ignore[no-untyped-call]
    groups = [
        {"params": [p for _, p in named], "weight_decay": weight_decay}
        for weight_decay, named in by_decay(trained, recipe)
    ]
    optimizer = SGD(
        groups,
        lr=recipe.effective_lr,
        momentum=recipe.momentum,
        convention="canonical",
        in_backward=True,
        max_norm=recipe.clip_norm or None,
        clipping="exact",
    )
    for name, p in trained.items():
        if momentum[name]:
            optimizer.state[p] = momentum[name]
    sum_in_place(model)
    return InBackward(optimizer, arrived)
