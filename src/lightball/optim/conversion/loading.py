"""States saved before a conversion are converted when they are loaded afterwards, and it is said.

A converted optimizer keeps a hook for it, which torch offers. A scheduler has none, so a converted one gets a class of
its own that is the same but for `load_state_dict`. Its state tells by what factors its rates have been multiplied; a
state without them is as old as the run. Both states stay plain numbers: without this package they load as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightball.errors import InputError
from lightball.optim.conversion import schedulers
from lightball.optim.conversion.rule import MOMENTUM_KEYS, Rule, rule_of
from lightball.optim.conversion.scaling import scale_group
from lightball.optim.conversion.written_out import WrittenOutLR

MARK = "lightball_factors"
"""The key of a scheduler's state with the factors that its rates contain, one for each group."""


def convert_older_states(optimizer: Optimizer, scheduler: LRScheduler | None, factors: Sequence[float]) -> None:
    """From now on, states of before are converted by `load_state_dict`. Call it again after each conversion."""
    if converted_to_present not in optimizer._optimizer_load_state_dict_pre_hooks.values():
        optimizer.register_load_state_dict_pre_hook(converted_to_present)
    if scheduler is not None:
        before = getattr(scheduler, MARK, [1.0] * len(factors))
        setattr(scheduler, MARK, [a * b for a, b in zip(before, factors, strict=True)])
        scheduler.__class__ = _guarded(schedulers.plain_type(scheduler))


def converted_to_present(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any] | None:
    """The state with momentum as the optimizer's groups have it now and the rates matched; None if it is so already.

    Buffers of groups that are converted are left out. The state given is not changed. A `UserWarning` says all this.
    """
    saved_groups = state_dict["param_groups"]
    if len(saved_groups) != len(optimizer.param_groups):
        return None  # torch says so
    groups, said, stale = [], [], set()
    for number, (saved, present) in enumerate(zip(saved_groups, optimizer.param_groups, strict=True)):
        was, now = rule_of({"convention": present.get("convention"), **saved}), rule_of(present)
        group = dict(saved)
        if was != now:
            scale_group(group, was.total / now.total)
            group.update({key: present[key] for key in MOMENTUM_KEYS if key in present})
            said.append(_sentence(number, saved, group, was, now))
        if was != now or now.momentum == 0:
            stale.update(saved["params"])
        groups.append(group)
    ignored = _buffers(state_dict["state"], stale)
    if not said and not ignored:
        return None
    number_of_bytes = sum(buffer.numel() * buffer.element_size() for buffer in ignored.values())
    if ignored:
        said.append(f"{len(ignored)} momentum buffers ({number_of_bytes:,} bytes) were ignored")
    warnings.warn(f"the state is older than the conversion of its optimizer: {'; '.join(said)}", stacklevel=2)
    state = {key: _without_buffer(value) if key in ignored else value for key, value in state_dict["state"].items()}
    return {**state_dict, "param_groups": groups, "state": {key: value for key, value in state.items() if value != {}}}


def _sentence(number: int, saved: Mapping[str, Any], group: Mapping[str, Any], was: Rule, now: Rule) -> str:
    return (
        f"in group {number} momentum {was.momentum:g} was ignored and is {now.momentum:g}, "
        f"lr {float(saved['lr']):g} became {float(group['lr']):g}"
    )


def _buffers(state: Mapping[Any, Any], keys: set[Any]) -> dict[Any, Tensor]:
    found = {key: state[key].get("momentum_buffer") for key in keys if key in state}
    return {key: buffer for key, buffer in found.items() if buffer is not None}


def _without_buffer(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "momentum_buffer"}


def _guarded(plain: type[LRScheduler]) -> type[LRScheduler]:
    """The class `plain` whose `load_state_dict` multiplies an older state's rates by what it lacks."""

    def load_state_dict(self: LRScheduler, state_dict: dict[str, Any]) -> None:
        if "rates" in state_dict and not issubclass(plain, WrittenOutLR):
            raise InputError(
                f"the state is of rates that were written out, the scheduler is a {plain.__name__}; required is a "
                "scheduler converted in the same way: give drop_momentum the same num_steps"
            )
        present = getattr(self, MARK)
        saved = state_dict.get(MARK, [1.0] * len(present))
        plain.load_state_dict(self, state_dict)
        setattr(self, MARK, present)
        factors = [now / was for now, was in zip(present, saved, strict=True)]
        if any(factor != 1.0 for factor in factors):
            schedulers.scale(self, factors)
            shown = ", ".join(f"{factor:g}" for factor in factors)
            warnings.warn(
                f"the state is older than the conversion of its {plain.__name__}: rates × {shown}", stacklevel=2
            )

    def reduce(self: LRScheduler, protocol: int) -> tuple[Any, ...]:
        return _blank, (plain,), vars(self)

    own = {"plain": plain, "load_state_dict": load_state_dict, "__reduce_ex__": reduce}
    return type(plain.__name__, (plain,), {**own, "__module__": plain.__module__, "__doc__": plain.__doc__})


def _blank(plain: type[LRScheduler]) -> LRScheduler:
    """What unpickling and copying fill: the class is made anew, since it has no name to be found by."""
    kind = _guarded(plain)
    return kind.__new__(kind)
