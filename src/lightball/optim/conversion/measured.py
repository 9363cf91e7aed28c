"""Whether an optimizer's steps are what its groups say: looked at before a factor is taken from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isclose
from typing import Any

from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim.auditing import Audited, audit
from lightball.optim.conversion.outcome import rates_of
from lightball.optim.conversion.rule import GroupRule, require_sgd
from lightball.optim.wrappers import layers

_AGREES = 1e-5  # relative; learning rates may be float32 tensors


def require_own_step(optimizer: object) -> None:
    """Refuse an optimizer, or a wrapper of one, whose step was replaced on the object: nothing says what it does.

    torch's schedulers put a function around the class's step that only counts; accelerate puts the same step back.
    """
    for layer in layers(optimizer):
        own: Any = vars(layer).get("step")
        plain = type(layer).step  # type: ignore[attr-defined]
        if own is not None and plain not in (getattr(own, "__wrapped__", None), getattr(own, "__func__", None)):
            raise InputError(
                f"the step of this {type(layer).__name__} was replaced on the object, and may do anything with the "
                "buffers; required is its class's own: del optimizer.step (make the scheduler after it), and do in "
                "the loop what the replacement does"
            )


def require_as_said(given: object, rules: Sequence[GroupRule]) -> tuple[str, ...]:
    """Compare each group that has momentum with `lightball.optim.audit`, about 0.1 s; returns what is not known.

    given is the optimizer or a wrapper of it. Raises `InputError` where momentum does not act, or acts otherwise than
    the group says.
    """
    optimizer = require_sgd(given)
    if all(rule.momentum == 0 for rule in rules):
        return ()
    has_buffers = [_has_buffer(optimizer, group) for group in optimizer.param_groups]
    stepped = any(getattr(layer, "_opt_called", False) for layer in layers(given))  # schedulers see to it
    lost = stepped and not any(has_buffers)
    notes = []
    rows = zip(rules, audit(optimizer), optimizer.param_groups, rates_of(optimizer), has_buffers, strict=True)
    for number, (rule, found, group, lr, has_buffer) in enumerate(rows):
        if rule.momentum == 0 or found.family == "unknown":
            continue
        if lost and found.momentum_active is not False:
            notes_of_audit = ("after steps, no parameter has a buffer", *found.notes)
            found = replace(found, momentum_active=False, notes=notes_of_audit)
        if not _agrees(rule, found, group, lr):
            raise InputError(_refusal(number, rule, found, lr, has_buffer))
        if not has_buffer:
            notes.append(
                f"group {number} has no buffer yet; if it has taken steps, its momentum was never active, and its lr "
                "should have stayed as it was"
            )
    return tuple(notes)


def _has_buffer(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    return any(optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in group["params"])


def _agrees(rule: GroupRule, found: Audited, group: dict[str, Any], lr: float) -> bool:
    if found.momentum_active is False:
        return False
    if group.get("momentum_schedule"):  # then its momentum is not one number
        return True
    said, measured = (rule.momentum, lr * rule.total), (found.momentum, found.effective_lr)
    return all(b is not None and isclose(a, b, rel_tol=_AGREES) for a, b in zip(said, measured, strict=True))


def _refusal(number: int, rule: GroupRule, found: Audited, lr: float, has_buffers: bool) -> str:
    start = f"group {number} says momentum {rule.momentum:g} and lr {lr:g}, which makes an effective lr of "
    start += f"{lr * rule.total:g}, but audit found "
    if found.momentum_active is False:
        return (
            f"{start}no active momentum and an effective lr of {_without_memory(rule, found, lr, has_buffers):g} "
            f"({found.notes[0]}); required is momentum that acts: give the group momentum=0 and this lr, which is the "
            "match already, or stop what clears the buffers, or take a step first if none has had a gradient yet"
        )
    measured = "none" if found.effective_lr is None else f"{found.effective_lr:g}"
    return (
        f"{start}{measured}, family {found.family!r}; required is SGD's own step: make an SGD of the effective lr "
        "that lightball.optim.audit shows"
    )


def _without_memory(rule: GroupRule, found: Audited, lr: float, has_buffers: bool) -> float:
    """What a gradient moves x by if each step starts with no buffer, or with one of zeros, unless it needs none."""
    if found.momentum == 0 and found.effective_lr is not None:
        return found.effective_lr
    first = 1 - rule.momentum if rule.canonical else 1 - rule.dampening if has_buffers else 1.0
    return lr * first * (1 + rule.momentum if rule.nesterov else 1.0)
