"""An audit of an optimizer's saved state, as far as numbers without a step can tell."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim.auditing.audited import Audited, number, rounded
from lightball.optim.auditing.auditor import audit
from lightball.optim.in_backward import PREVIOUS_NORM
from lightball.optim.sgd import SGD

_SGD = {"lr", "momentum", "dampening", "weight_decay", "nesterov"}
_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"}  # write these into groups
_LABELS = {"name", "param_names"}
_OWN = "convention"
_SGD_STATE = {"momentum_buffer", "compensation", "rounding_seed"}
_SECOND_MOMENTS = {"exp_avg_sq", "square_avg", "sum", "exp_inf", "exp_avg_sq_row"}
_REBUILT = (
    "a state holds no step: these are the values of {name} with this state; audit the function that makes the "
    "optimizer to see what it really does"
)
_UNKNOWN = (
    "a state holds no step, and this one is not SGD's{why}; the values are what its groups say: audit the function "
    "that makes the optimizer"
)

_EMPTY = "no momentum buffers in this state: saved before the first step, or momentum is not used"


def audit_checkpoint(path: str | Path) -> tuple[Audited, ...]:
    """What the optimizer states in a `torch.save`d file say, group by group; nothing in the file is executed.

    A state with the groups of `torch.optim.SGD`, or of `lightball.optim.SGD`, is audited with that optimizer's step
    and its saved buffers. Others are only read.

    Raises:
        InputError: there is no such file, it holds more than tensors and plain values, or no optimizer's state.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder: give a checkpoint in it, or my_train.py:make_optimizer")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}: give a checkpoint, or my_train.py:make_optimizer")
    saved = _loaded(path)
    found = list(_states(saved, ""))
    if not found:
        raise InputError(
            f"{path.name} holds no optimizer's state, a dict with 'state' and 'param_groups'; save "
            "optimizer.state_dict() in it"
        )
    several = len(found) > 1
    return tuple(
        replace(one, optimizer=f"{one.optimizer} in {where}") if several else one
        for where, state in found
        for one in _audited(state)
    )


def _loaded(path: Path) -> Any:
    """What the file holds. torch's own words are kept back: they advise to execute what is in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the many kinds that a damaged or unsafe file raises
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
    if unsafe is None:
        raise InputError(
            f"{path.name} is not a file of torch.save, or damaged; required is one of tensors and plain values, as "
            "from torch.save({'optimizer': optimizer.state_dict()}, path)"
        )
    raise InputError(
        f"{path.name} holds {unsafe[1]}, which only executing code could load; save "
        "{'optimizer': optimizer.state_dict()} alone"
    )


def _states(saved: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All optimizer states in nested dicts and lists, and where they stand."""
    if isinstance(saved, dict):
        if isinstance(saved.get("param_groups"), list) and isinstance(saved.get("state"), dict):
            yield where or "the file", saved
            return
        for name, value in saved.items():
            yield from _states(value, f"{where}.{name}" if where else str(name))
    elif isinstance(saved, (list, tuple)):
        for index, value in enumerate(saved):
            yield from _states(value, f"{where}[{index}]")


def _audited(state: dict[str, Any]) -> tuple[Audited, ...]:
    groups = state["param_groups"]
    if not all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups):
        raise InputError("the optimizer's state has groups without a list of params: save optimizer.state_dict()")
    kept = {name for values in state["state"].values() if isinstance(values, dict) for name in values}
    foreign = sorted({name for group in groups for name in group} - _known_keys() | (kept - _SGD_STATE))
    if groups and all(group.keys() >= _SGD for group in groups) and not foreign:
        optimizer = _rebuilt(state)
        name = f"{'lightball' if isinstance(optimizer, SGD) else 'torch'}.optim.SGD"
        note = _REBUILT.format(name=name)
        return tuple(_as_saved(one, groups[one.group], state["state"], note) for one in audit(optimizer))
    adaptive = bool(kept & _SECOND_MOMENTS)
    note = _UNKNOWN.format(why=f", which has no {foreign[0]!r}" if foreign else "")
    return tuple(_only_read(index, group, state["state"], adaptive, note) for index, group in enumerate(groups))


def _as_saved(one: Audited, group: dict[str, Any], states: dict[Any, Any], note: str) -> Audited:
    """What was found with a rebuilt optimizer, with the state of the file in place of that of the copy."""
    size = _state_size(group, states)
    saved = _is_saved(group, states)
    notes = (note, *one.notes) if saved or not one.momentum else (_EMPTY, note, *one.notes)
    return replace(one, state_bytes_per_parameter=rounded(size), state_saved=saved, notes=notes)


def _is_saved(group: dict[str, Any], states: dict[Any, Any]) -> bool:
    return any(key in states for key in group["params"])


def _known_keys() -> set[str]:
    """What stands in groups of SGD, torch's or ours, and what schedulers write there."""
    groups = (group for kind in (torch.optim.SGD, SGD) for group in kind([torch.zeros(1)]).param_groups)
    return {name for group in groups for name in group} | {PREVIOUS_NORM} | _SCHEDULERS | _LABELS


def _rebuilt(state: dict[str, Any]) -> Optimizer:
    """SGD with the saved groups and state, over parameters that have a shape but no values."""
    own = all(_OWN in group for group in state["param_groups"])
    groups = [[_placeholder(state["state"].get(key)) for key in group["params"]] for group in state["param_groups"]]
    listed = [{"params": params} for params in groups]
    optimizer: Optimizer = SGD(listed) if own else torch.optim.SGD(listed)
    for made, saved, params in zip(optimizer.param_groups, state["param_groups"], groups, strict=True):
        made.update({name: value for name, value in saved.items() if name != "params"})
        for p, key in zip(params, saved["params"], strict=True):
            if key in state["state"]:
                optimizer.state[p] = state["state"][key]
    return optimizer


def _placeholder(values: dict[str, Any] | None) -> torch.nn.Parameter:
    buffer = (values or {}).get("momentum_buffer")
    like = buffer if isinstance(buffer, Tensor) else torch.zeros(1)
    return torch.nn.Parameter(torch.empty(like.shape, dtype=like.dtype, device="meta"))


def _only_read(index: int, group: dict[str, Any], states: dict[Any, Any], adaptive: bool, note: str) -> Audited:
    """What a group says of itself."""
    momentum, decoupled = group.get("momentum"), group.get("decoupled_weight_decay")
    return Audited(
        index,
        "an optimizer",
        "not linear" if adaptive else "unknown",
        nonlinearity="adaptive" if adaptive else None,
        lr=number(group.get("lr")),
        momentum=None if adaptive else number(momentum),
        weight_decay=number(group.get("weight_decay")),
        decoupled=decoupled if isinstance(decoupled, bool) else None,
        state_bytes_per_parameter=_state_size(group, states),
        state_saved=_is_saved(group, states),
        notes=(note,),
    )


def _state_size(group: dict[str, Any], states: dict[Any, Any]) -> float:
    """Bytes per element; how many elements a parameter has is known from the largest tensor that is kept of it."""
    held = [states[key] for key in group["params"] if isinstance(states.get(key), dict)]
    tensors = [[value for value in values.values() if isinstance(value, Tensor)] for values in held]
    sizes = [max((t.numel() for t in each), default=0) for each in tensors]
    total = sum(t.numel() * t.element_size() for each in tensors for t in each)
    return total / sum(sizes) if sum(sizes) else 0.0
