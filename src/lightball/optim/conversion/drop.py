"""Momentum dropped in the middle of a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from lightball.errors import InputError
from lightball.optim.conversion import schedulers, written_out
from lightball.optim.conversion.loading import convert_older_states
from lightball.optim.conversion.measured import require_as_said, require_own_step
from lightball.optim.conversion.outcome import Dropped, changes, rates_of
from lightball.optim.conversion.rule import GroupRule, group_rule, require_sgd
from lightball.optim.conversion.scaling import scale_group, scale_groups, scaled
from lightball.optim.rounding import is_rounded, writer
from lightball.optim.svag import SVAG


def drop_momentum(
    optimizer: Optimizer,
    scheduler: LRScheduler | Sequence[LRScheduler] | Literal["none"] | None = None,
    pending: Literal["match", "apply", "drop"] = "match",
    *,
    num_steps: int | None = None,
) -> Dropped:
    """Turn a live SGD with momentum into its momentum-free match, in place, between two steps.

    In every group lr becomes lr (1 − dampening)/(1 − μ), the total step of a gradient; momentum, dampening and Nesterov
    are off and the buffers are freed. Weight decay stays: lr × weight_decay is then what it was in steady state. The
    scheduler goes on with its rates times the same factor. Where it moves momentum (OneCycleLR, CyclicLR), the
    rest of the run is written out by the averaged schedule, for one step of the scheduler at each step of the
    optimizer; this, and a scheduler that torch does not have, needs num_steps, the steps left (OneCycleLR knows them).

    pending says what becomes of the way that the buffer b would still move the weights, −lr μ/(1 − μ) b (Nesterov:
    −lr μ²/(1 − μ) b). "apply" moves them so at once, "drop" forgets it. "match" does what keeps the run's place: it
    drops where rates take the factor, since momentum lags by as much at any time and matched SGD does not, and applies
    where they are averaged, since these leave out what the last gradients would have moved after the end.

    scheduler is one, or a list of all that are used. Wrappers of the optimizer are seen through. States saved before
    are converted when loaded afterwards, with a warning. Raises `InputError`, with nothing changed, for other
    optimizers, where momentum does not act (an audit is made), and for what cannot be carried over. Source:
    arXiv:2307.15196, §2.
    """
    if pending not in ("match", "apply", "drop"):
        raise InputError(f"pending is {pending!r}; required is 'match', 'apply' (move by it now) or 'drop' (forget it)")
    if not (num_steps is None or (type(num_steps) is int and num_steps >= 1)):
        raise InputError(f"num_steps is {num_steps!r}; required is a whole number ≥ 1, how many steps are left")
    given, optimizer = optimizer, require_sgd(optimizer)
    require_own_step(given)
    old = [group_rule(group) for group in optimizer.param_groups]
    carried = schedulers.carried(scheduler, given)
    plan = _plan(optimizer, carried, old, num_steps)
    unknown = require_as_said(given, old)
    before = rates_of(optimizer)  # nothing has changed up to here

    buffers = _take_buffers(optimizer)
    number_of_buffers, lost = sum(len(taken) for taken in buffers), 0
    moves = any(plan.ways) and (pending == "apply" or (pending == "match" and plan.averaged))
    if moves:
        share = 1 / given.ell if isinstance(given, SVAG) else 1.0  # of lr, in a step
        lost = sum(_apply(optimizer, k, buffers[k], share * way) for k, way in enumerate(plan.ways))
    scale_groups(optimizer, plan.factors)
    _forget_momentum(optimizer)
    were: tuple[str | None, ...] = tuple(type(each).__name__ for each in carried)
    if plan.rates is not None:
        if not carried:
            warnings.warn(
                "momentum followed a schedule, and lr does now: step the scheduler that drop_momentum returns, "
                "dropped.scheduler, after each step",
                stacklevel=2,
            )
        were = were or (None,)
        schedulers.forget_cycles(optimizer)
        carried = (written_out.write_out(carried[0] if carried else None, optimizer, plan.rates),)
    else:
        for each in carried:
            schedulers.scale(each, plan.factors)
    convert_older_states(
        optimizer,
        carried,
        [GroupRule()] * len(old),
        [1.0] * len(old) if plan.averaged else plan.factors,
        written_out=plan.rates is not None,
    )
    return Dropped(
        schedulers=carried,
        factors=None if plan.averaged else tuple(scaled(1.0, factor) for factor in plan.factors),
        groups=changes(before, rates_of(optimizer), old, [GroupRule()] * len(old)),
        pending="none" if number_of_buffers == 0 else "applied" if moves and lost < number_of_buffers else "dropped",
        bytes_freed=sum(b.numel() * b.element_size() for taken in buffers for _, b in taken),
        notes=(*_notes(old, plan, lost, num_steps), *unknown, *schedulers.notes(carried, plan.factors)),
        schedulers_were=were,
    )


@dataclass(frozen=True)
class _Plan:
    """Factor, pending way per unit of buffer, and the rates written out if they must be, for each group."""

    factors: list[float]
    ways: list[float]
    rates: list[list[float]] | None = None
    averaged: bool = False


def _plan(
    optimizer: Optimizer, carried: Sequence[LRScheduler], rules: Sequence[GroupRule], num_steps: int | None
) -> _Plan:
    factors = [rule.total for rule in rules]
    ways = [lr * rule.pending for lr, rule in zip(rates_of(optimizer), rules, strict=True)]
    scheduled = any(group.get("momentum_schedule") for group in optimizer.param_groups)
    why_not = "momentum follows a schedule" if scheduled else schedulers.why_not_scaled(carried, factors)
    known = _steps_left(carried[0]) if len(carried) == 1 else None
    if num_steps is not None and known is not None and num_steps != known:
        raise InputError(
            f"num_steps is {num_steps}, but the OneCycleLR has {known} steps left; required is that number: leave "
            "num_steps out"
        )
    if why_not is None:
        return _Plan(factors, ways)
    if len(carried) > 1:
        raise InputError(
            f"the learning rate cannot be carried over by a factor: {why_not}; it can be written out for one scheduler "
            f"only, and {len(carried)} were given: make one of them, as by ChainedScheduler or SequentialLR"
        )
    scheduler = carried[0] if carried else None
    left = known if num_steps is None else num_steps
    if left is None or left < 1:
        raise InputError(
            f"the learning rate cannot be carried over by a factor: {why_not}; required is num_steps ≥ 1, how many "
            f"steps are left, to write them out (got {left})"
        )
    rates, momenta = written_out.ahead(optimizer, scheduler, left)
    if not (scheduled or schedulers.writes_momentum(carried)):
        return _Plan(factors, ways, (rates * np.array(factors)[:, None]).tolist())
    rows = [written_out.averaged(*row) for row in zip(rates, momenta, rules, strict=True)]
    return _Plan(factors, [way for _, way in rows], [row.tolist() for row, _ in rows], averaged=True)


def _steps_left(scheduler: LRScheduler) -> int | None:
    """For OneCycleLR, which knows; the step at hand is one of them."""
    return scheduler.total_steps - scheduler.last_epoch if isinstance(scheduler, OneCycleLR) else None


def _take_buffers(optimizer: Optimizer) -> list[list[tuple[Tensor, Tensor]]]:
    """The parameters and buffers of each group, out of the optimizer's state."""
    taken = []
    for group in optimizer.param_groups:
        pairs = []
        for p in group["params"]:
            buffer = optimizer.state[p].pop("momentum_buffer", None) if p in optimizer.state else None
            if p in optimizer.state and not optimizer.state[p]:
                del optimizer.state[p]
            if buffer is not None:
                pairs.append((p, buffer))
        taken.append(pairs)
    return taken


@torch.no_grad()
def _apply(optimizer: Optimizer, number: int, buffers: Sequence[tuple[Tensor, Tensor]], way: float) -> int:
    """x ← x − way · b; the number of buffers left out because they are not finite, as after an overflow.

    Low-precision weights are rounded as the group of `lightball.optim.SGD` says.
    """
    group = {"rounding": "nearest", **optimizer.param_groups[number]}
    finite = [(p, buffer) for p, buffer in buffers if way and bool(buffer.isfinite().all())]
    for p, buffer in finite:
        if is_rounded(p, group):
            write, rest = writer(p, optimizer.state[p], group)
            exact = p.float() if rest is None else p.float() + rest
            write(exact.sub_(buffer.float(), alpha=way), p, rest)
        else:
            p.add_(buffer, alpha=-way)
    return len(buffers) - len(finite) if way else 0


def _forget_momentum(optimizer: Optimizer) -> None:
    """Also in the defaults, from which groups that are added later take what they are not told."""
    scale_group(optimizer.defaults, group_rule(optimizer.defaults).total)
    for group in (optimizer.defaults, *optimizer.param_groups):
        group.update(momentum=0.0, dampening=0.0, nesterov=False)
        if "momentum_schedule" in group:
            group["momentum_schedule"] = None


def _notes(rules: Sequence[GroupRule], plan: _Plan, lost: int, num_steps: int | None) -> tuple[str, ...]:
    notes = []
    if not plan.averaged and all(rule.momentum == 0 for rule in rules):
        notes.append("no group had momentum, so nothing changed but what may have been left in buffers")
    if plan.rates is not None:
        how = "averaged over the changing momentum" if plan.averaged else "times the factor"
        notes.append(
            f"the scheduler is a WrittenOutLR now, to be stepped after each step: {len(plan.rates[0])} rates, {how}"
        )
        notes.append("checkpoints from now on load only after drop_momentum on the fresh optimizer and scheduler")
    elif num_steps is not None:
        notes.append("num_steps was not needed: the rates of every later step take the factor")
    if lost:
        notes.append(f"{lost} buffers are not finite and were dropped, not applied")
    return tuple(notes)
