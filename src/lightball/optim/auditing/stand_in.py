"""A small copy of an optimizer that can be driven at will, without a trace in the original."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightball.errors import InputError, reason_of
from lightball.optim.auditing.copying import copied, make_drivable, representatives, small_ones
from lightball.optim.in_backward import InBackward

Pieces = tuple[Tensor, ...]  # a vector of all elements, cut up by parameter


@dataclass(frozen=True)
class StandIn:
    """A copy of an optimizer with an empty state, over a few small float64 parameters of each of its groups.

    The elements of all of them are laid out as one vector; ``slices`` has each group's part of it, and ``shapes``
    those of the group's parameters. ``calls`` counts the calls of the closure in each step of the run.
    """

    optimizer: Optimizer
    slices: tuple[slice, ...]
    shapes: tuple[tuple[torch.Size, ...], ...]
    left_out: tuple[str, ...]
    by_closure: bool = False
    calls: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of elements of all groups."""
        return self.slices[-1].stop if self.slices else 0

    def run(self, gradients: Tensor, start: Tensor, hold: bool = False) -> Tensor:
        """Where each step leads: positions of shape (step, element), from gradients of shape (step, element).

        Parameters begin at ``start``, (element,). ``hold`` puts them back there before every step, so that only
        the gradients and the memory of the optimizer tell the steps apart. To be called once.

        Raises:
            InputError: the optimizer's step fails.
        """
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        sizes = [p.numel() for p in params]
        places = _pieces(start, sizes)
        positions = torch.empty_like(gradients)
        _write(params, places)
        step = _by_closure if self.by_closure else _plainly
        for gradient, position in zip(gradients, positions, strict=True):
            if hold:
                _write(params, places)
            try:
                self.calls.append(step(self.optimizer, params, _pieces(gradient, sizes)))
            except Exception as error:  # somebody else's code runs here: anything can be raised
                raise InputError(self._failure(error)) from error
            torch.cat([p.detach().flatten() for p in params], out=position)
        return positions

    def _failure(self, error: Exception) -> str:
        why = "required is a step that takes dense gradients from p.grad"
        if self.left_out:
            why = f"the copy lacks what cannot be copied: {', '.join(self.left_out)}; audit without that"
        return (
            f"{type(self.optimizer).__name__} cannot be audited: its step fails on small copies of its parameters with "
            f"{type(error).__name__}: {reason_of(error)}; {why}"
        )


def maker(optimizer: Optimizer) -> Callable[..., StandIn]:
    """What makes fresh stand-ins for an optimizer, which are given a closure where it cannot do without.

    Its one argument is ``raised``, as in :func:`stand_in`. Only the stand-in that was made last can be driven.

    Raises:
        InputError: it has no parameter with elements, or its step fails with and without a closure.
    """
    # Each new one searches the whole heap for a GradScaler. It knows parameters by their ids, so all are kept.
    shared = {id(own): copy.deepcopy(own) for own in vars(optimizer).values() if isinstance(own, InBackward)}
    made: list[StandIn] = []

    def make(by_closure: bool, raised: Collection[int] = ()) -> StandIn:
        made.append(stand_in(optimizer, by_closure, shared, raised))
        return made[-1]

    try:
        _try(make(by_closure=False))
    except InputError as error:
        try:
            _try(make(by_closure=True))
        except InputError:
            raise error from error.__cause__
        return partial(make, True)
    return partial(make, False)


def _try(made: StandIn) -> None:
    made.run(torch.ones((2, made.size), dtype=torch.float64), torch.zeros(made.size, dtype=torch.float64))


def stand_in(
    optimizer: Optimizer, by_closure: bool, shared: dict[int, InBackward], raised: Collection[int] = ()
) -> StandIn:
    """A fresh stand-in for an optimizer; neither it nor its parameters, state or hooks are touched or called.

    Groups whose learning rate is 0, and those whose index is in ``raised``, get the rate 1. ``shared`` are copies
    that all stand-ins have in turn, by the id of the original.

    Raises:
        InputError: it has no parameter with elements.
    """
    memo = small_ones(optimizer)
    small = {key: memo[key] for group in optimizer.param_groups for key in map(id, group["params"])}
    left_out: list[str] = []
    made = copied(optimizer, memo | shared, left_out)
    slices, shapes, end = [], [], 0
    for index, (group, real) in enumerate(zip(made.param_groups, optimizer.param_groups, strict=True)):
        group["params"][:] = [small[id(p)] for p in representatives(real["params"])]
        make_drivable(group, index in raised)
        begin, end = end, end + sum(p.numel() for p in group["params"])
        slices.append(slice(begin, end))
        shapes.append(tuple(p.shape for p in group["params"]))
    if end == 0:
        raise InputError(
            f"{type(optimizer).__name__} has no parameter with elements, and cannot be audited: give it a model's"
        )
    if callable(train := getattr(made, "train", None)):  # schedule-free methods step in train mode only
        train()
    return StandIn(made, tuple(slices), tuple(shapes), tuple(left_out), by_closure)


def _pieces(vector: Tensor, sizes: list[int]) -> Pieces:
    return tuple(torch.split(vector, sizes))


def _write(params: list[Tensor], values: Pieces) -> None:
    with torch.no_grad():
        for p, value in zip(params, values, strict=True):
            p.copy_(value.view_as(p))


def _plainly(optimizer: Optimizer, params: list[Tensor], gradients: Pieces) -> int:
    _backward(params, gradients)
    _step_of(optimizer)(optimizer)
    return 0


def _by_closure(optimizer: Optimizer, params: list[Tensor], gradients: Pieces) -> int:
    calls = []

    def closure() -> Tensor:
        calls.append(loss := _backward(params, gradients))
        return loss

    _step_of(optimizer)(optimizer, closure)
    return len(calls)


def _step_of(optimizer: Optimizer) -> Callable[..., Any]:
    """The class's step, without the hooks that hold for all optimizers."""
    step: Callable[..., Any] = type(optimizer).step
    return step.__wrapped__ if getattr(step, "hooked", False) else step  # type: ignore[attr-defined]


def _backward(params: list[Tensor], gradients: Pieces) -> Tensor:
    """The loss ⟨g, p⟩, whose gradient is g to the bit; a backward pass, for optimizers that step during it."""
    with torch.enable_grad():
        for p in params:
            p.grad = None
        loss = torch.stack([(p * g.view_as(p)).sum() for p, g in zip(params, gradients, strict=True)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, random numbers are drawn from a copy of the generator, and the warnings of others are not shown."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
