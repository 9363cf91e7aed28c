"""What a conversion returns: what changed, to read and to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightball.optim.conversion.rule import GroupRule


@dataclass(frozen=True)
class GroupChange:
    """One parameter group before and after."""

    lr: tuple[float, float]
    momentum: tuple[float, float]
    dampening: tuple[float, float]
    nesterov: tuple[bool, bool]


@dataclass(frozen=True)
class Dropped:
    """What `drop_momentum` did.

    schedulers are those to go on with: the objects that were given, out of accelerate's wrappers (which go on working),
    or a new one where a schedule of momentum was written out; scheduler is the first of them. factors is what the rates
    of each group were multiplied by, now and at every later step; None where momentum changed during the run, whose
    rates were averaged. schedulers_were holds the names of the schedulers' classes before, None for a new one. pending
    says what became of the way that the buffers would still have moved the weights: they were moved by it ("applied"),
    it was "dropped", or there were no buffers ("none"). bytes_freed counts the momentum buffers. `print` shows all of
    it.
    """

    schedulers: tuple[LRScheduler, ...]
    factors: tuple[float, ...] | None
    groups: tuple[GroupChange, ...]
    pending: Literal["none", "dropped", "applied"]
    bytes_freed: int
    notes: tuple[str, ...]
    schedulers_were: tuple[str | None, ...]

    @property
    def scheduler(self) -> LRScheduler | None:
        """The scheduler to go on with, the first if there are several; None if there is none."""
        return self.schedulers[0] if self.schedulers else None

    def __str__(self) -> str:
        had_momentum = self.factors is None or any(group.momentum[0] for group in self.groups)
        lines = [
            "momentum dropped" if had_momentum else "nothing to drop: no group had momentum",
            *_groups(self.groups),
            *(_scheduler(was, now) for was, now in zip(self.schedulers_were, self.schedulers, strict=True)),
            f"pending: {'weights moved by it' if self.pending == 'applied' else self.pending}",
            f"freed: {self.bytes_freed:,} bytes of momentum buffers",
        ]
        return "\n".join([*lines, *_notes(self.notes)])


@dataclass(frozen=True)
class Restored:
    """What `with_momentum` did; the fields are those of `Dropped`."""

    schedulers: tuple[LRScheduler, ...]
    factors: tuple[float, ...]
    groups: tuple[GroupChange, ...]
    notes: tuple[str, ...]

    @property
    def scheduler(self) -> LRScheduler | None:
        """The scheduler to go on with, the first if there are several; None if there is none."""
        return self.schedulers[0] if self.schedulers else None

    def __str__(self) -> str:
        carried = [_scheduler(type(scheduler).__name__, scheduler) for scheduler in self.schedulers]
        return "\n".join(["momentum given", *_groups(self.groups), *carried, *_notes(self.notes)])


def rates_of(optimizer: Optimizer) -> list[float]:
    """The learning rate of each group as a number."""
    return [float(lr.item() if isinstance(lr := group["lr"], Tensor) else lr) for group in optimizer.param_groups]


def changes(
    before: list[float], after: list[float], old: Sequence[GroupRule], new: Sequence[GroupRule]
) -> tuple[GroupChange, ...]:
    """One change for each group, from its rates and rules before and after."""
    rows = zip(before, after, old, new, strict=True)
    return tuple(
        GroupChange((a, b), (was.momentum, now.momentum), (was.dampening, now.dampening), (was.nesterov, now.nesterov))
        for a, b, was, now in rows
    )


def _groups(groups: tuple[GroupChange, ...]) -> list[str]:
    return [f"group {number}: {_group(group)}" for number, group in enumerate(groups)]


def _group(group: GroupChange) -> str:
    """Dampening and Nesterov only where they change."""
    said = [f"lr {group.lr[0]:g} → {group.lr[1]:g}", f"momentum {group.momentum[0]:g} → {group.momentum[1]:g}"]
    if group.dampening[0] != group.dampening[1]:
        said.append(f"dampening {group.dampening[0]:g} → {group.dampening[1]:g}")
    if group.nesterov[0] != group.nesterov[1]:
        said.append("Nesterov on → off" if group.nesterov[0] else "Nesterov off → on")
    return ", ".join(said)


def _scheduler(was: str | None, scheduler: LRScheduler) -> str:
    now = type(scheduler).__name__
    if was is None:
        return f"scheduler: new, a {now}: call dropped.scheduler.step() after each optimizer.step()"
    return f"scheduler: {now}, carried over" if was == now else f"scheduler: {was} → {now}"


def _notes(notes: tuple[str, ...]) -> list[str]:
    return [f"note: {note}" for note in notes]
