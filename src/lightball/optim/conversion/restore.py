"""Momentum given to a live SGD."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightball.errors import InputError
from lightball.optim.conversion import schedulers
from lightball.optim.conversion.loading import convert_older_states
from lightball.optim.conversion.measured import require_own_step
from lightball.optim.conversion.outcome import Restored, changes, rates_of
from lightball.optim.conversion.rule import GroupRule, group_rule, require_sgd
from lightball.optim.conversion.scaling import scale_group, scale_groups, scaled
from lightball.rules import Hyperparameters, validate


def with_momentum(
    optimizer: Optimizer,
    momentum: float | Sequence[float] = 0.9,
    scheduler: LRScheduler | Sequence[LRScheduler] | Literal["none"] | None = None,
    *,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> Restored:
    """Give a live SGD without momentum its match with momentum, in place: the inverse of `drop_momentum`.

    In every group lr becomes lr (1 − μ)/(1 − dampening) (in the canonical convention it stays); the scheduler's rates
    take the same factor. momentum is one number or one for each group. Buffers start empty, so that the first
    1/(1 − μ) steps are shorter. Raises `InputError`, with nothing changed, for a group that has momentum already, for
    other optimizers, and for a scheduler whose rates cannot take a factor.
    """
    given, optimizer = optimizer, require_sgd(optimizer)
    require_own_step(given)
    old = [group_rule(group) for group in optimizer.param_groups]
    new = _rules(momentum, dampening, nesterov, [rule.canonical for rule in old])
    for number, (rule, group) in enumerate(zip(old, optimizer.param_groups, strict=True)):
        scheduled = ", by a schedule" if group.get("momentum_schedule") else ""
        if rule.momentum or scheduled:
            raise InputError(
                f"group {number} has momentum {rule.momentum:g} already{scheduled}; required is none: drop_momentum "
                "first"
            )
    factors = [1 / rule.total for rule in new]
    carried = schedulers.carried(scheduler, given)
    if why_not := schedulers.why_not_scaled(carried, factors):
        raise InputError(
            f"the scheduler cannot be carried over: {why_not}; required is a factor for its rates: make a LambdaLR of "
            "them"
        )
    before = rates_of(optimizer)  # nothing has changed up to here

    scale_groups(optimizer, factors)
    for each in carried:
        schedulers.scale(each, factors)
    scale_group(optimizer.defaults, factors[0])
    for group, rule in zip((optimizer.defaults, *optimizer.param_groups), (new[0], *new), strict=True):
        group.update(momentum=rule.momentum, dampening=rule.dampening, nesterov=rule.nesterov)
    convert_older_states(optimizer, carried, new, factors)
    return Restored(
        schedulers=carried,
        factors=tuple(scaled(1.0, factor) for factor in factors),
        groups=changes(before, rates_of(optimizer), old, new),
        notes=(*_shorter_steps(new), *schedulers.notes(carried, factors)),
    )


def _shorter_steps(rules: Sequence[GroupRule]) -> tuple[str, ...]:
    longest = max(rule.momentum for rule in rules)
    if longest == 0:
        return ()
    return (f"buffers start empty: about the first {1 / (1 - longest):.3g} steps, 1/(1 − momentum), are shorter",)


def _rules(
    momentum: float | Sequence[float], dampening: float, nesterov: bool, canonical: list[bool]
) -> list[GroupRule]:
    momenta = list(momentum) if isinstance(momentum, (list, tuple)) else [momentum] * len(canonical)
    if not all(isinstance(each, Real) for each in momenta):
        raise InputError(f"momentum is {momentum!r}; required is a number, 0 ≤ momentum < 1, or a list of one a group")
    if len(momenta) != len(canonical):
        raise InputError(
            f"momentum has {len(momenta)} numbers for {len(canonical)} groups; required is one number, or one a group"
        )
    if any(canonical) and (dampening or nesterov):
        raise InputError(
            f"dampening is {dampening:g} and nesterov {nesterov} for the canonical convention, which has no such "
            "choice; leave them out"
        )
    return [_rule(float(each), own, dampening, nesterov) for each, own in zip(momenta, canonical, strict=True)]  # type: ignore[arg-type]


def _rule(momentum: float, canonical: bool, dampening: float, nesterov: bool) -> GroupRule:
    """A group of momentum 0 has neither dampening nor Nesterov, as torch requires."""
    rule = GroupRule(momentum, dampening if momentum else 0.0, nesterov and momentum != 0, canonical)
    validate(Hyperparameters(1.0, rule.momentum, rule.dampening, nesterov=rule.nesterov))
    return rule
