"""The update rule of a step, for all parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightball.optim.update import update_group
from lightball.rules import State
from lightball.training.recipe import Recipe

Named = list[tuple[str, nn.Parameter]]


@torch.no_grad()
def update(
    trained: Mapping[str, nn.Parameter], momentum: Mapping[str, State], recipe: Recipe, effective_lr: float
) -> None:
    """m' = β m + (1 − β) (g + λ x), x' = x − η m' in place; a parameter that the loss does not depend on has g = 0."""
    for weight_decay, named in by_decay(trained, recipe):
        group = _group(effective_lr, recipe.momentum, weight_decay)
        params = [p for _, p in named]
        update_group(params, [_gradient(p) for p in params], [momentum[name] for name, _ in named], group)


def by_decay(trained: Mapping[str, nn.Parameter], recipe: Recipe) -> list[tuple[float, Named]]:
    """The parameters by their weight decay, which biases and normalisation are spared where the recipe says so."""
    if recipe.decay == "all" or not recipe.weight_decay:
        return [(recipe.weight_decay, list(trained.items()))]
    matrices = [(name, p) for name, p in trained.items() if p.ndim > 1]
    others = [(name, p) for name, p in trained.items() if p.ndim <= 1]
    return [(decay, named) for decay, named in ((recipe.weight_decay, matrices), (0.0, others)) if named]


def _group(effective_lr: float, momentum: float, weight_decay: float) -> dict[str, Any]:
    """A parameter group of `lightball.optim.SGD`, without the optimizer."""
    return {
        "lr": effective_lr,
        "momentum": momentum,
        "momentum_schedule": None,
        "dampening": momentum,
        "weight_decay": weight_decay,
        "convention": "canonical",
        "nesterov": False,
        "maximize": False,
        "rounding": "nearest",
        "differentiable": False,
        "foreach": None,
        "fused": None,
    }


def _gradient(p: nn.Parameter) -> Tensor:
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad.to_dense() if p.grad.is_sparse else p.grad
