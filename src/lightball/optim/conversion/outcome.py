"""What a conversion returns: what changed, to read and to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightball.optim.conversion.rule import GroupRule


@dataclass(frozen=True)
class GroupChange:
    """One parameter group before and after."""

    lr: tuple[float, float]
    momentum: tuple[float, float]


@dataclass(frozen=True)
class Dropped:
    """What `drop_momentum` did.

    schedulers are those to go on with: the objects that were given, out of accelerate's wrappers (which go on working),
    or a new one where a schedule of momentum was written out; scheduler is the first of them. factors is what the rates
    of each group were multiplied by, now and at every later step; None where momentum changed during the run, whose
    rates were averaged. bytes_freed counts the momentum buffers. `print` shows all of it.
    """

    schedulers: tuple[LRScheduler, ...]
    factors: tuple[float, ...] | None
    groups: tuple[GroupChange, ...]
    bytes_freed: int
    notes: tuple[str, ...]

    @property
    def scheduler(self) -> LRScheduler | None:
        """The scheduler to go on with, the first if there are several; None if there is none."""
        return self.schedulers[0] if self.schedulers else None

    def __str__(self) -> str:
        freed = f"freed: {self.bytes_freed:,} bytes of momentum buffers"
        return "\n".join(["momentum dropped", *_lines(self.groups, self.schedulers), freed, *_notes(self.notes)])


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
        return "\n".join(["momentum given", *_lines(self.groups, self.schedulers), *_notes(self.notes)])


def rates_of(optimizer: Optimizer) -> list[float]:
    """The learning rate of each group as a number."""
    return [float(lr.item() if isinstance(lr := group["lr"], Tensor) else lr) for group in optimizer.param_groups]


def changes(
    before: list[float], after: list[float], old: Sequence[GroupRule], new: Sequence[GroupRule]
) -> tuple[GroupChange, ...]:
    """One change for each group, from its rates and rules before and after."""
    rows = zip(before, after, old, new, strict=True)
    return tuple(GroupChange((a, b), (was.momentum, now.momentum)) for a, b, was, now in rows)


def _lines(groups: tuple[GroupChange, ...], schedulers: tuple[LRScheduler, ...]) -> list[str]:
    lines = [
        f"group {number}: lr {g.lr[0]:g} → {g.lr[1]:g}, momentum {g.momentum[0]:g} → {g.momentum[1]:g}"
        for number, g in enumerate(groups)
    ]
    return lines + [f"scheduler: {type(scheduler).__name__}, carried over" for scheduler in schedulers]


def _notes(notes: tuple[str, ...]) -> list[str]:
    return [f"note: {note}" for note in notes]
