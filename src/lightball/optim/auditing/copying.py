"""A copy of an optimizer without its weight: an empty state, small parameters, no hooks."""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, MutableMapping, MutableSequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim.in_backward import PREVIOUS_NORM

SIDE = 3  # a small parameter's largest length of an axis
_OF_A_KIND = 2  # small parameters of one group with the same number of axes
_HARMLESS = {"capturable": False, "differentiable": False, "compile_step": False}  # how, not what, is computed
_PLAIN = (bool, int, float, str, tuple, type(None))
_NOTHING = object()  # there is no copy


def copied(optimizer: Optimizer, memo: dict[int, Any], left_out: list[str]) -> Optimizer:
    """A copy made attribute by attribute, since an optimizer's own way of being copied leaves most of them out.

    ``memo`` is that of `copy.deepcopy`, with :func:`small_ones` in it. Left out are the state, hooks, whatever stands
    in the place of a method (schedulers and launchers wrap ``step`` on the object), and what cannot be copied, whose
    names are added to ``left_out``.
    """
    new: Any = object.__new__(type(optimizer))
    memo[id(optimizer)] = new
    new_state: defaultdict[Tensor, Any] = defaultdict(dict)
    memo[id(optimizer.state)] = new_state
    for name, value in vars(optimizer).items():
        made: Any
        if name == "state":
            made = new_state
        elif name.startswith("_optimizer_") and name.endswith("_hooks"):
            made = OrderedDict()
        elif callable(value) and callable(getattr(type(optimizer), name, None)):
            continue
        elif id(value) in memo:
            made = memo[id(value)]
        elif isinstance(value, Optimizer):
            made = copied(value, memo, left_out)
        elif name == "param_groups":
            made = memo[id(value)] = [_group(group, memo, left_out) for group in value]
        else:
            made = _copy_of(value, memo, name, left_out)
        if made is not _NOTHING:
            object.__setattr__(new, name, made)
    for values in (vars(new), new.defaults):
        values.update({name: value for name, value in _HARMLESS.items() if name in values})
    return new  # type: ignore[no-any-return]


def small_ones(optimizer: Optimizer) -> dict[int, Any]:
    """By the id of what they stand for: small parameters, cut tensors, and random generators seeded anew.

    Cut is what an optimizer holds in the shape of a parameter beside its state, as masters or snapshots of weights.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    memo: dict[int, Any] = {id(p): _small(p) for p in params}
    shapes = {p.shape for p in params}
    for held in _leaves({name: value for name, value in vars(optimizer).items() if name != "state"}, set()):
        if id(held) in memo:
            continue
        if isinstance(held, torch.Generator):  # one that goes on as it is would hide that steps are random
            memo[id(held)] = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        elif type(held) in (Tensor, nn.Parameter) and held.shape in shapes:
            memo[id(held)] = _cut(held)
    return memo


def representatives(params: list[Tensor]) -> list[Tensor]:
    """The first two of each number of axes, trainable ones if there are any; matrices may be treated by themselves."""
    filled = [p for p in params if p.numel()]
    chosen: defaultdict[int, list[Tensor]] = defaultdict(list)
    for p in [p for p in filled if p.requires_grad] or filled:
        if len(chosen[p.ndim]) < _OF_A_KIND:
            chosen[p.ndim].append(p)
    return list(itertools.chain.from_iterable(chosen.values()))


def make_drivable(group: dict[str, Any], raised: bool) -> None:
    """Change what would keep a group from being driven on the CPU; its rate becomes 1 if it is 0 or ``raised``."""
    for name, value in group.items():
        if name in _HARMLESS:
            group[name] = _HARMLESS[name]
        elif isinstance(value, Tensor):
            group[name] = value.cpu()
    group.pop(PREVIOUS_NORM, None)  # of clipping: of gradients that are not these
    if "lr" in group and (raised or float(group["lr"]) == 0):
        group["lr"] = torch.ones_like(group["lr"]) if isinstance(group["lr"], Tensor) else 1.0


def _group(group: dict[str, Any], memo: dict[int, Any], left_out: list[str]) -> dict[str, Any]:
    new: dict[str, Any] = {}
    memo[id(group)] = new
    for name, value in group.items():
        made = _copy_of(value, memo, name, left_out)
        if made is not _NOTHING:
            new[name] = made
    return new


def _copy_of(value: Any, memo: dict[int, Any], name: str, left_out: list[str]) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except InputError:  # which says what is wrong
        raise
    except Exception:  # of the many kinds that other people's objects raise
        if name not in left_out:
            left_out.append(name)
        return type(value)() if isinstance(value, (MutableMapping, MutableSequence)) else _NOTHING  # or a cache


def _leaves(value: Any, seen: set[int]) -> Iterator[Any]:
    """What containers, modules and other optimizers in an optimizer hold."""
    if id(value) in seen:
        return
    seen.add(id(value))
    inner: Any
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, (list, tuple, set)):
        inner = value
    elif isinstance(value, nn.Module):
        inner = [*value.parameters(), *value.buffers()]
    elif isinstance(value, Optimizer):
        inner = [vars(value)]
    else:
        yield value
        return
    for each in inner:
        yield from _leaves(each, seen)


def _small(p: Tensor) -> nn.Parameter:
    small = nn.Parameter(torch.zeros([min(length, SIDE) for length in p.shape], dtype=torch.float64))
    for name, value in vars(p).items():  # flags that some optimizers read
        if isinstance(value, _PLAIN):
            setattr(small, name, value)
    return small


def _cut(tensor: Tensor) -> Tensor:
    """The corner of a tensor that has a small parameter's shape, on the CPU."""
    corner = tensor.detach()[tuple(slice(SIDE) for _ in tensor.shape)]
    corner = torch.zeros_like(corner, device="cpu") if corner.is_meta else corner.cpu().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(corner, requires_grad=tensor.requires_grad)
    return corner.requires_grad_(tensor.requires_grad)
