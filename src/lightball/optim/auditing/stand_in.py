"""A small copy of an optimizer that can be driven at will, without a trace in the original."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightball.errors import InputError, reason_of
from lightball.optim.in_backward import PREVIOUS_NORM

SIDE = 3  # a stand-in's largest length of an axis
_OF_A_KIND = 2  # stand-ins of one group with the same number of axes
_HARMLESS = {"capturable": False, "differentiable": False, "compile_step": False}  # how, not what, is computed
Pieces = tuple[Tensor, ...]  # a vector of all elements, cut up by parameter
_PLAIN = (bool, int, float, str, tuple, type(None))


@dataclass(frozen=True)
class StandIn:
    """A copy of an optimizer with an empty state, over a few small float64 parameters of each of its groups.

    The elements of all of them are laid out as one vector; ``slices`` has each group's part of it, and ``shapes``
    those of the group's parameters.
    """

    optimizer: Optimizer
    slices: tuple[slice, ...]
    shapes: tuple[tuple[torch.Size, ...], ...]
    left_out: tuple[str, ...]
    by_closure: bool = False

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
                step(self.optimizer, params, _pieces(gradient, sizes))
            except Exception as error:  # somebody else's code runs here: anything can be raised
                raise InputError(
                    f"{type(self.optimizer).__name__} cannot be audited: its step fails on small copies of its "
                    f"parameters with {type(error).__name__}: {reason_of(error)}; required is a step that takes dense "
                    "gradients from p.grad"
                ) from error
            torch.cat([p.detach().flatten() for p in params], out=position)
        return positions


def maker(optimizer: Optimizer) -> Callable[[], StandIn]:
    """What makes fresh stand-ins for an optimizer, which are given a closure where it cannot do without.

    Raises:
        InputError: it has no parameter with elements, or its step fails with and without a closure.
    """
    try:
        _try(stand_in(optimizer))
    except InputError as error:
        try:
            _try(stand_in(optimizer, by_closure=True))
        except InputError:
            raise error from error.__cause__
        return lambda: stand_in(optimizer, by_closure=True)
    return lambda: stand_in(optimizer)


def _try(made: StandIn) -> None:
    made.run(torch.ones((2, made.size), dtype=torch.float64), torch.zeros(made.size, dtype=torch.float64))


def stand_in(optimizer: Optimizer, by_closure: bool = False) -> StandIn:
    """A fresh stand-in for an optimizer; neither it nor its parameters, state or hooks are touched or called.

    Groups whose learning rate is 0 get 1 instead, as they could not be read otherwise.

    Raises:
        InputError: it has no parameter with elements.
    """
    memo: dict[int, Any] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            memo[id(p)] = _small(p)
    left_out: list[str] = []
    copied = _copied(optimizer, memo, left_out)
    slices, shapes, end = [], [], 0
    for group, real in zip(copied.param_groups, optimizer.param_groups, strict=True):
        group["params"][:] = [memo[id(p)] for p in _representatives(real["params"])]
        _make_drivable(group)
        begin, end = end, end + sum(p.numel() for p in group["params"])
        slices.append(slice(begin, end))
        shapes.append(tuple(p.shape for p in group["params"]))
    if end == 0:
        raise InputError(
            f"{type(optimizer).__name__} has no parameter with elements, and cannot be audited: give it a model's"
        )
    if callable(train := getattr(copied, "train", None)):  # schedule-free methods step in train mode only
        train()
    return StandIn(copied, tuple(slices), tuple(shapes), tuple(left_out), by_closure)


def _small(p: Tensor) -> torch.nn.Parameter:
    small = torch.nn.Parameter(torch.zeros([min(length, SIDE) for length in p.shape], dtype=torch.float64))
    for name, value in vars(p).items():  # flags that some optimizers read
        if isinstance(value, _PLAIN):
            setattr(small, name, value)
    return small


def _representatives(params: list[Tensor]) -> list[Tensor]:
    """The first two of each number of axes, trainable ones if there are any; matrices may be treated by themselves."""
    filled = [p for p in params if p.numel()]
    chosen: defaultdict[int, list[Tensor]] = defaultdict(list)
    for p in [p for p in filled if p.requires_grad] or filled:
        if len(chosen[p.ndim]) < _OF_A_KIND:
            chosen[p.ndim].append(p)
    return list(itertools.chain.from_iterable(chosen.values()))


def _copied(optimizer: Optimizer, memo: dict[int, Any], left_out: list[str]) -> Optimizer:
    """A copy made attribute by attribute, since an optimizer's own way of being copied leaves most of them out.

    Left out are the state, hooks, whatever stands in the place of a method (schedulers and launchers wrap ``step``
    on the object), and what cannot be copied.
    """
    new: Any = object.__new__(type(optimizer))
    memo[id(optimizer)] = new
    new_state: defaultdict[Tensor, Any] = defaultdict(dict)
    memo[id(optimizer.state)] = new_state
    for name, value in vars(optimizer).items():
        if name == "state":
            copied: Any = new_state
        elif name.startswith("_optimizer_") and name.endswith("_hooks"):
            copied = OrderedDict()
        elif callable(value) and callable(getattr(type(optimizer), name, None)):
            continue
        elif isinstance(value, Optimizer):
            copied = memo[id(value)] if id(value) in memo else _copied(value, memo, left_out)
        else:
            try:
                copied = copy.deepcopy(value, memo)
            except Exception:
                left_out.append(name)
                if not isinstance(value, (MutableMapping, MutableSequence)):
                    continue
                copied = type(value)()  # a cache, as it seems
        object.__setattr__(new, name, copied)
    for name in _HARMLESS.keys() & vars(new).keys():
        setattr(new, name, _HARMLESS[name])
    return new  # type: ignore[no-any-return]


def _make_drivable(group: dict[str, Any]) -> None:
    for name, value in group.items():
        if name in _HARMLESS:
            group[name] = _HARMLESS[name]
        elif isinstance(value, Tensor):
            group[name] = value.cpu()
    group.pop(PREVIOUS_NORM, None)  # of clipping: of gradients that are not these
    if "lr" in group and float(group["lr"]) == 0:
        group["lr"] = torch.ones_like(group["lr"]) if isinstance(group["lr"], Tensor) else 1.0


def _pieces(vector: Tensor, sizes: list[int]) -> Pieces:
    return tuple(torch.split(vector, sizes))


def _write(params: list[Tensor], values: Pieces) -> None:
    with torch.no_grad():
        for p, value in zip(params, values, strict=True):
            p.copy_(value.view_as(p))


def _plainly(optimizer: Optimizer, params: list[Tensor], gradients: Pieces) -> None:
    _backward(params, gradients)
    _step_of(optimizer)(optimizer)


def _by_closure(optimizer: Optimizer, params: list[Tensor], gradients: Pieces) -> None:
    _step_of(optimizer)(optimizer, lambda: _backward(params, gradients))


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
