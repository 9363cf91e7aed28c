"""What the momentum of a parameter group amounts to, and the optimizers whose groups can be read so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim.wrappers import unwrapped
from lightball.rules import Setting


@dataclass(frozen=True)
class GroupRule:
    """How a group uses its gradients, apart from the rate; the words are those of `torch.optim.SGD`.

    canonical: m' = β m + (1 − β) g, whose dampening follows its momentum, and is 0 here.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    canonical: bool = False

    @property
    def total(self) -> float:
        """How far a gradient moves x in all, per lr: (1 − dampening)/(1 − μ); 1 without momentum or if canonical."""
        if self.momentum == 0:  # dampening and Nesterov then mean nothing
            return 1.0
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

    def does_as(self, other: GroupRule) -> bool:
        """Whether steps are the same; without momentum, the other words mean nothing."""
        return self == other or self.momentum == other.momentum == 0


def group_rule(group: Mapping[str, Any]) -> GroupRule:
    """The present rule of a group of SGD, of one saved in a state, or of the optimizer's defaults."""
    momentum, canonical = group.get("momentum", 0.0), group.get("convention") == "canonical"
    if callable(momentum):  # in the defaults of lightball.optim.SGD, whose groups hold the number
        momentum = momentum(0)
    dampening = 0.0 if canonical else float(group.get("dampening", 0.0))
    return GroupRule(float(momentum), dampening, bool(group.get("nesterov", False)), canonical)


def require_sgd(optimizer: object) -> Optimizer:
    """The SGD inside an optimizer's wrappers; refuses, by name, what is neither torch's nor `lightball.optim.SGD`.

    A subclass counts if it leaves `step` alone: its groups would otherwise only seem to say what it does.
    """
    from lightball.optim.sgd import SGD

    inner = unwrapped(optimizer)
    kind: Any = type(inner)
    for known in (torch.optim.SGD, SGD):
        if isinstance(inner, known) and kind.step is known.step:
            return inner
    if isinstance(getattr(inner, "optimizer", None), Optimizer):
        raise InputError(
            f"the optimizer is a {kind.__name__} around another one; required is the optimizer itself: "
            "give its .optimizer"
        )
    required = "required is torch.optim.SGD or lightball.optim.SGD"
    if not isinstance(inner, Optimizer):
        raise InputError(
            f"the optimizer is of class {kind.__name__}; {required}: give the object whose step() the loop calls"
        )
    if kind.__module__.startswith("torch.optim."):
        raise InputError(
            f"the optimizer is of class {kind.__name__}, whose steps have no match in SGD: its momentum can neither be "
            f"dropped nor given; {required}"
        )
    raise InputError(
        f"the optimizer is of class {kind.__name__}; {required}, whose groups say what its steps do: look with "
        "lightball.optim.audit whether the steps of this one have a match in SGD; if so, make an SGD of the effective "
        "lr that it shows"
    )
