"""What the momentum of a parameter group amounts to, and the optimizers whose groups can be read so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.rules import Setting


@dataclass(frozen=True)
class Rule:
    """How a group uses its gradients, apart from the rate; the words are those of `torch.optim.SGD`.

    canonical: m' = β m + (1 − β) g, whose dampening follows its momentum.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    canonical: bool = False

    @property
    def total(self) -> float:
        """How far a gradient moves x in all, per lr: (1 − dampening)/(1 − μ), or 1 in the canonical form."""
        if self.canonical:
            return Setting("ema", 1.0, self.momentum).effective_lr
        return Setting("torch", 1.0, self.momentum, self.dampening, self.nesterov).effective_lr

    @property
    def pending(self) -> float:
        """How far the buffer b would still move x, per lr · b, with no further gradient and the lr as it is.

        μ + μ² + … = μ/(1 − μ). With Nesterov each of these steps is μ times as long: μ²/(1 − μ).
        """
        first = self.momentum**2 if self.nesterov else self.momentum
        return first / (1 - self.momentum)


MOMENTUM_KEYS = ("momentum", "dampening", "nesterov", "momentum_schedule", "momentum_step")
"""What a group says of its momentum; the last two are those of `lightball.optim.SGD`."""


def rule_of(group: Mapping[str, Any]) -> Rule:
    """The present rule of a group of SGD, of one saved in a state, or of the optimizer's defaults."""
    momentum, canonical = group.get("momentum", 0.0), group.get("convention") == "canonical"
    if callable(momentum):  # in the defaults of lightball.optim.SGD, whose groups hold the number
        momentum = momentum(0)
    return Rule(float(momentum), float(group.get("dampening", 0.0)), bool(group.get("nesterov", False)), canonical)


def rules_of(optimizer: Optimizer) -> list[Rule]:
    """The rule of each group. Raises `InputError` for an optimizer whose step is not that of SGD."""
    require_sgd(optimizer)
    return [rule_of(group) for group in optimizer.param_groups]


def unwrapped(optimizer: Optimizer) -> Optimizer:
    """What accelerate, and so Hugging Face's Trainer, has put its wrapper around; any other optimizer itself."""
    if type(optimizer).__module__.partition(".")[0] == "accelerate":
        inner: Optimizer = optimizer.optimizer  # type: ignore[attr-defined]
        return inner
    return optimizer


def require_sgd(optimizer: Optimizer) -> None:
    """Refuse, by name, what is neither `torch.optim.SGD` nor `lightball.optim.SGD`.

    A subclass counts if it leaves `step` alone: its groups would otherwise only seem to say what it does.
    """
    from lightball.optim.sgd import SGD

    kind = type(optimizer)
    if any(issubclass(kind, known) and kind.step is known.step for known in (torch.optim.SGD, SGD)):
        return
    if isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        raise InputError(
            f"the optimizer is a {kind.__name__} around another one; required is the optimizer itself: "
            "give its .optimizer"
        )
    raise InputError(
        f"the optimizer is a {kind.__name__}; required is torch.optim.SGD or lightball.optim.SGD, whose groups say "
        "what its steps do: look with lightball.optim.audit what this one does, then make an SGD of its effective lr"
    )
