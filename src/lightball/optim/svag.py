"""SVAG around an optimizer: the same noise in the limit of small steps, and 1/ℓ of the curvature's part of a step."""

from __future__ import annotations

import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.oracles import svag_weights

Loss = Callable[[], Tensor]


class SVAG(Optimizer):
    """Steps of ``optimizer`` with gradients r₊ g₁ + r₋ g₂ of two independent minibatches and with lr/ℓ.

    A step has the mean of g and ℓ times its covariance, so that ℓ times as many steps at lr/ℓ follow the same SDE,
    while what curvature adds to each falls as 1/ℓ: what is left of a difference between two algorithms at large ℓ is
    not due to curvature. Weights r± from `lightball.oracles.svag_weights`; momentum is left as it is, and so is
    weight decay, of which lr/ℓ takes its share. Source: arXiv:2102.12470; the law is that of SGD with or without
    momentum. A step costs two gradients of the optimizer's batch size, and no memory.

        optimizer = SVAG(torch.optim.SGD(model.parameters(), lr=0.1), ell=4)
        scheduler = CosineAnnealingLR(optimizer, optimizer.num_steps(1000))
        for first, second in pairs_of_batches:
            optimizer.zero_grad()
            optimizer.backward(lambda: loss(first), lambda: loss(second))
            optimizer.step()
            scheduler.step()

    Parameter groups and state are those of ``optimizer``: their "lr" is that of ℓ = 1 and is divided only during a
    step, so that schedulers work with the rates that they know, over `num_steps` steps; a state dict can go on at
    another ℓ. Clipping by hand, gradient accumulation (`backward` several times) and a GradScaler (scaled losses)
    stand between `backward` and `step` as usual. ``ell=1`` is the optimizer itself, on the first of the two.

    Raises:
        InputError: ell < 1; an optimizer whose step needs a closure, that updates in backward, or has no "lr".
    """

    def __init__(self, optimizer: Optimizer, ell: float) -> None:
        _check(optimizer)
        if name := _not_sgd(optimizer):
            warnings.warn(
                f"SVAG around {name}: that ell steps of lr/ell make as much noise as one of lr holds for SGD, with or "
                "without momentum; methods that divide by what gradients were have other laws",
                stacklevel=2,
            )
        self.weights = svag_weights(ell)
        self.optimizer, self.ell = optimizer, ell
        self._complete = False
        # The base class keeps hooks here; groups and state stay with the optimizer, which may replace them.
        super().__setstate__({"defaults": dict(optimizer.defaults)})

    def __reduce__(self) -> tuple[Any, ...]:
        return SVAG, (self.optimizer, self.ell)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Those of the wrapped optimizer, with the learning rates of ℓ = 1."""
        return self.optimizer.param_groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        """That of the wrapped optimizer."""
        return self.optimizer.state

    def num_steps(self, steps: int) -> int:
        """The number of steps that goes as far as ``steps`` of the optimizer at ℓ = 1: ℓ times as many, rounded."""
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
            raise InputError(f"steps is {steps!r}; required is a whole number from 0 up: the steps at ell = 1")
        return round(self.ell * steps)

    def backward(self, first: Loss, second: Loss) -> Tensor:
        """Add the gradient of r₊ L₁ + r₋ L₂ to ``.grad``; returns the mean of L₁ and L₂, detached.

        Each is a function that computes the mean loss over a minibatch of its own; they are called in turn, so that
        only one graph is alive at a time. At ℓ = 1, where r₋ is 0, the second is not called.
        """
        losses = []
        for weight, loss in zip(self.weights, (first, second), strict=True):
            if weight != 0:
                value = loss()
                (value if weight == 1 else weight * value).backward()  # type: ignore[no-untyped-call]
                losses.append(value.detach())
        self._complete = True
        return torch.stack(losses).mean()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of the optimizer at lr/ℓ with the gradients of `backward`.

        Raises:
            InputError: there was no `backward` since the last step, or a closure.
        """
        if closure is not None:
            raise InputError(
                "SVAG's step got a closure, but takes none: call optimizer.backward(first, second) before it"
            )
        if not self._complete:
            raise InputError(
                "SVAG's step needs the gradients of two minibatches, but there was no backward(first, second) since "
                "the last step or zero_grad: call optimizer.backward(first, second) in place of loss.backward()"
            )
        with self._divided_rates():
            self.optimizer.step()
        self._complete = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the optimizer does."""
        self._complete = False
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add it to the optimizer."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """That of the optimizer, which knows nothing of ℓ."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load it into the optimizer."""
        self.optimizer.load_state_dict(state_dict)

    @contextmanager
    def _divided_rates(self) -> Iterator[None]:
        rates = [group["lr"] for group in self.param_groups]
        try:
            if self.ell != 1:
                for group in self.param_groups:
                    group["lr"] = group["lr"] / self.ell
            yield
        finally:
            for group, lr in zip(self.param_groups, rates, strict=True):
                group["lr"] = lr


def _not_sgd(optimizer: Optimizer) -> str:
    """The name of an optimizer whose state tells that it is none of SGD's kind, "" otherwise."""
    adaptive = {"betas", "eps", "alpha", "rho", "lambd", "etas"} & set(optimizer.defaults)
    return type(optimizer).__name__ if adaptive else ""


def _check(optimizer: Optimizer) -> None:
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"SVAG got a {type(optimizer).__name__}; required is a torch.optim.Optimizer, such as SGD")
    name = type(optimizer).__name__
    required = [p for p in inspect.signature(optimizer.step).parameters.values() if _must_be_given(p)]
    if required:
        raise InputError(
            f"the step of {name} needs a {required[0].name}, which evaluates the loss as often as it likes; SVAG "
            "requires one whose step uses the gradients that are there: use SGD"
        )
    if getattr(optimizer, "_in_backward", None) is not None:
        raise InputError(
            f"{name} with in_backward=True moves in each backward pass, but SVAG needs two for a step: use "
            "in_backward=False"
        )
    if isinstance(optimizer, SVAG):
        raise InputError(
            "SVAG got an SVAG; required is the optimizer in it: give its .optimizer, and the product of ells"
        )
    if not all("lr" in group for group in optimizer.param_groups):
        raise InputError(f"a parameter group of {name} has no 'lr', which SVAG divides by ell: use SGD")


def _must_be_given(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )
