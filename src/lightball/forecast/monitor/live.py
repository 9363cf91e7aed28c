"""What an optimizer does at this moment, after schedules have had their say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.rules.conventions import Setting


@dataclass(frozen=True)
class Live:
    """An optimizer's rate and momentum now.

    Args:
        lr: its own learning rate; None where its groups have several.
        effective_lr: η of x' = x − η m', m' = β m + (1 − β) g; None where there is no such form.
        momentum: β.
        obstacle: why it is no SGD with momentum that can be forecast; empty where it is.
    """

    lr: float | None
    effective_lr: float | None
    momentum: float | None
    obstacle: str = ""


def live(optimizer: Optimizer) -> Live:
    """Rate and momentum of the optimizer's groups that train something, as they are now."""
    groups = [g for g in optimizer.param_groups if any(p.requires_grad for p in g["params"])]
    rates = {float(g["lr"]) for g in groups if "lr" in g}
    lr = rates.pop() if len(rates) == 1 else None
    if not isinstance(optimizer, torch.optim.SGD):
        name = type(optimizer).__name__
        return Live(lr, None, None, f"the optimizer is {name}, but forecasts are for torch.optim.SGD")
    if lr is None:
        return Live(None, None, None, "parameter groups have different learning rates, forecasts are for one")
    shared = {(g["momentum"], g["dampening"], g["nesterov"], g["maximize"]) for g in groups}
    if len(shared) > 1:
        return Live(lr, None, None, "parameter groups have different momenta, forecasts are for one")
    momentum, dampening, nesterov, maximize = shared.pop()
    if maximize:
        return Live(lr, None, momentum, "the optimizer maximises, forecasts are for losses that fall")
    return _of_setting(lr, momentum, dampening, nesterov)


@lru_cache(maxsize=16)  # checks take longer than a step of a small model
def _of_setting(lr: float, momentum: float, dampening: float, nesterov: bool) -> Live:
    try:
        setting = Setting("torch", lr, momentum, dampening, nesterov)
    except InputError as error:
        return Live(lr, None, momentum, str(error))
    obstacle = "the momentum is Nesterov's, forecasts are for the heavy ball" if nesterov else ""
    return Live(lr, setting.effective_lr, momentum, obstacle)


def unwrapped_optimizer(optimizer: Any) -> Optimizer:
    """The torch optimizer within the wrappers of Lightning and Accelerate.

    Raises:
        InputError: there is none.
    """
    while not isinstance(optimizer, Optimizer) or hasattr(optimizer, "optimizer"):
        if not hasattr(optimizer, "optimizer"):
            raise InputError(f"optimizer is a {type(optimizer).__name__}, but must be a torch.optim.Optimizer")
        optimizer = optimizer.optimizer
    return optimizer
