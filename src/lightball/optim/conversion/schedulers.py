"""A scheduler carried over: the rates it will give are those it would have given, times a factor for each group.

What torch's schedulers give is homogeneous in the absolute rates that they and the groups hold: all of these times c
give all later rates times c. Most hold base rates only; the others are listed here. Where that cannot be done, the
rest of the run is written out (`written_out`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR

from lightball.errors import InputError
from lightball.optim.conversion.rule import unwrapped
from lightball.optim.conversion.scaling import same, scaled
from lightball.optim.conversion.written_out import WrittenOutLR

_PER_GROUP = ("base_lrs", "max_lrs", "min_lrs", "rates", "_last_lr")
"""Attributes with one rate (or one list of them) for each group."""

_SHARED = ("eta_min", "eps", "default_min_lr")
"""Attributes with one rate for all groups. The last two belong to `ReduceLROnPlateau`: the smallest change it makes,
and the bound of groups added later."""

_KNOWN = (
    lr_scheduler.LambdaLR,
    lr_scheduler.MultiplicativeLR,
    lr_scheduler.StepLR,
    lr_scheduler.MultiStepLR,
    lr_scheduler.ConstantLR,
    lr_scheduler.LinearLR,
    lr_scheduler.ExponentialLR,
    lr_scheduler.SequentialLR,
    lr_scheduler.CosineAnnealingLR,
    lr_scheduler.ChainedScheduler,
    lr_scheduler.ReduceLROnPlateau,
    lr_scheduler.CyclicLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
    lr_scheduler.OneCycleLR,
    lr_scheduler.PolynomialLR,
    SWALR,
    WrittenOutLR,
)


def parts(scheduler: LRScheduler | None) -> Iterator[LRScheduler]:
    """The scheduler and, for one made of others, all of them; nothing of None."""
    if scheduler is None:
        return
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from parts(part)


def plain_type(scheduler: LRScheduler) -> type[LRScheduler]:
    """Its class, seen through what an earlier conversion has put before it (`loading`)."""
    return getattr(type(scheduler), "plain", type(scheduler))


def writes_momentum(scheduler: LRScheduler | None) -> bool:
    """Whether it moves momentum beside the rate, as OneCycleLR and CyclicLR do unless told not to."""
    return any(getattr(part, "cycle_momentum", False) for part in parts(scheduler))


def why_not_scaled(scheduler: LRScheduler | None, factors: Sequence[float]) -> str | None:
    """What stands against multiplying its rates, or None."""
    for part in parts(scheduler):
        name = type(part).__name__
        if plain_type(part) not in _KNOWN:
            return f"{name} is not one of torch's schedulers, so where it keeps its rates is not known"
        if getattr(part, "eta_min", 0.0) and not same(factors):
            return (
                f"{name} has one eta_min for all groups, whose factors differ ({', '.join(f'{f:g}' for f in factors)})"
            )
    return "it moves momentum as well as the rate" if writes_momentum(scheduler) else None


def scale(scheduler: LRScheduler, factors: Sequence[float]) -> None:
    """Every absolute rate that it and its parts hold, times the group's factor; groups are `scaling`'s."""
    for part in parts(scheduler):
        for name in _PER_GROUP:
            if name in vars(part):
                values = zip(getattr(part, name), factors, strict=True)
                setattr(part, name, [scaled(value, factor) for value, factor in values])
        for name in _SHARED:
            if name in vars(part):
                setattr(part, name, scaled(getattr(part, name), min(factors)))


def carried(scheduler: object, optimizer: Optimizer) -> LRScheduler | None:
    """The scheduler to carry over, out of accelerate's wrapper; None for "none", or if there is none.

    Raises `InputError` for a scheduler of another optimizer or another kind, and where one exists but was not given.
    """
    if scheduler is None:
        if any(hasattr(each.step, "_wrapped_by_lr_sched") for each in (optimizer, unwrapped(optimizer))):
            raise InputError(
                "no scheduler was given, but one was made on this optimizer and would write its old rates; required "
                "is that scheduler: give scheduler=…, or scheduler='none' if it is not used any more"
            )
        return None
    if scheduler == "none":
        return None
    name = type(scheduler).__name__
    if type(scheduler).__module__.partition(".")[0] == "accelerate":
        scheduler = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(scheduler, LRScheduler):
        raise InputError(
            f"the scheduler is a {name}; required is one of torch.optim.lr_scheduler: write its rates as a LambdaLR"
        )
    if unwrapped(scheduler.optimizer) is not unwrapped(optimizer):
        raise InputError(f"the {name} belongs to another optimizer; required is the one made on this optimizer")
    return scheduler
