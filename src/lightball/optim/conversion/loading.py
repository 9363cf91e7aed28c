"""States saved before a conversion are converted when they are loaded afterwards, and it is said.

A converted optimizer keeps a hook for it, which torch offers. A scheduler has none, so a converted one gets a class of
its own that is the same but for `load_state_dict`. Both states are marked: the optimizer's groups with the momentum
that they were given, whatever schedulers make of it later, and the scheduler with the factors that its rates contain. A
state without marks is as old as the run. All are plain numbers: without this package they load as they are.
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
from lightball.optim.conversion.rule import GroupRule, group_rule
from lightball.optim.conversion.scaling import scale_group
from lightball.optim.conversion.written_out import WrittenOutLR

MARK = "lightball_factors"
"""The key of a scheduler's state with the factors that its rates contain, one for each group."""

CONVERTED = "lightball_converted"
"""The key of an optimizer's groups, and so of their state, with the momentum that the last conversion gave them."""

_MOMENTUM = ("momentum", "dampening", "nesterov")
_OWN = ("convention", "momentum_schedule", "momentum_step")  # those of `lightball.optim.SGD`


def convert_older_states(
    optimizer: Optimizer,
    carried: Sequence[LRScheduler],
    rules: Sequence[GroupRule],
    factors: Sequence[float],
    written_out: bool = False,
) -> None:
    """From now on, states of before are converted by `load_state_dict`. Call it again after each conversion.

    rules are those that the groups have been given; factors, what the schedulers' rates were multiplied by.
    """
    if converted_to_present not in optimizer._optimizer_load_state_dict_pre_hooks.values():
        optimizer.register_load_state_dict_pre_hook(converted_to_present)
    default = group_rule(optimizer.defaults)  # which groups that are added later take
    for group, rule in zip((optimizer.defaults, *optimizer.param_groups), (default, *rules), strict=True):
        before = group.get(CONVERTED, {})
        group[CONVERTED] = {
            "momentum": rule.momentum,
            "dampening": rule.dampening,
            "nesterov": rule.nesterov,
            "written_out": written_out or before.get("written_out", False),
        }
    for scheduler in carried:
        had = getattr(scheduler, MARK, [1.0] * len(factors))
        setattr(scheduler, MARK, [a * b for a, b in zip(had, factors, strict=True)])
        scheduler.__class__ = _guarded(schedulers.plain_type(scheduler))


def converted_to_present(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any] | None:
    """The state with each group as the last conversion made it, and unchanged if it is of that conversion.

    Rates are matched, and buffers of groups that are converted are left out, as a `UserWarning` says. The state given
    is not changed. Raises `InputError` where rates were written out, by one of the two conversions only.
    """
    saved_groups, present_groups = state_dict["param_groups"], optimizer.param_groups
    if len(saved_groups) != len(present_groups):
        return None  # torch says so
    groups, said, stale = [], [], set()
    for number, (saved, present) in enumerate(zip(saved_groups, present_groups, strict=True)):
        if saved.get(CONVERTED) == present.get(CONVERTED):
            groups.append(saved)
            continue
        group = _converted(saved, present)
        was, now = group_rule(saved), group_rule(group)
        if not was.does_as(now):
            said.append(_sentence(number, saved, group, was, now))
        if not was.does_as(now) or now.momentum == 0:
            stale.update(saved["params"])
        groups.append(group)
    ignored = _buffers(state_dict["state"], stale)
    number_of_bytes = sum(buffer.numel() * buffer.element_size() for buffer in ignored.values())
    if ignored:
        said.append(f"{len(ignored)} momentum buffers ({number_of_bytes:,} bytes) were ignored")
    if said:
        warnings.warn(f"the state is older than the conversion of its optimizer: {'; '.join(said)}", stacklevel=2)
    state = {key: _without_buffer(value) if key in ignored else value for key, value in state_dict["state"].items()}
    return {**state_dict, "param_groups": groups, "state": {key: value for key, value in state.items() if value != {}}}


def _converted(saved: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """The saved group with the present one's conversion: what a scheduler has written since does not count."""
    mark = present.get(CONVERTED)
    before = saved.get(CONVERTED, {})
    if mark is None:
        return dict(saved)
    if mark["written_out"] != before.get("written_out", False):
        raise InputError(
            f"the state is {'older' if mark['written_out'] else 'newer'} than the conversion that wrote the "
            "scheduler's rates out, so that its lr belongs to no step of this run; required is a state of the same "
            "conversion: make optimizer and scheduler anew, load, and convert again"
        )
    was, now = group_rule(saved), group_rule({**mark, "convention": present.get("convention")})
    if was.does_as(now):
        return {**saved, CONVERTED: mark}
    group = {key: value for key, value in saved.items() if key not in _OWN}
    group |= {key: present[key] for key in _OWN if key in present}
    scale_group(group, was.total / now.total)
    return {**group, **{key: mark[key] for key in _MOMENTUM}, CONVERTED: mark}


def _sentence(number: int, saved: Mapping[str, Any], group: Mapping[str, Any], was: GroupRule, now: GroupRule) -> str:
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
