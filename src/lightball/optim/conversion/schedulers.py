"""A scheduler carried over: the rates it will give are those it would have given, times a factor for each group.

What torch's schedulers give is homogeneous in the absolute rates that they and the groups hold: all of these times c
give all later rates times c. Most hold base rates only; the others are listed here. Where that cannot be done, the
rest of the run is written out (`written_out`).
"""

from __future__ import annotations

import gc
from collections.abc import Sequence, Set

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR

from lightball.errors import InputError
from lightball.optim.conversion.scaling import same, scaled
from lightball.optim.conversion.written_out import WrittenOutLR
from lightball.optim.wrappers import layers

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


def parts(scheduler: LRScheduler) -> list[LRScheduler]:
    """The scheduler and, for one made of others, all of them."""
    found = [scheduler]
    for each in found:
        held = [value for name, value in vars(each).items() if name != "optimizer"]
        held += [value for values in held if isinstance(values, (list, tuple)) for value in values]
        found += [value for value in held if isinstance(value, LRScheduler) and all(value is not one for one in found)]
    return found


def plain_type(scheduler: LRScheduler) -> type[LRScheduler]:
    """Its class, seen through what an earlier conversion has put before it (`loading`)."""
    return getattr(type(scheduler), "plain", type(scheduler))


def writes_momentum(carried: Sequence[LRScheduler]) -> bool:
    """Whether one moves momentum beside the rate, as OneCycleLR and CyclicLR do unless told not to."""
    return any(getattr(part, "cycle_momentum", False) for scheduler in carried for part in parts(scheduler))


def why_not_scaled(carried: Sequence[LRScheduler], factors: Sequence[float]) -> str | None:
    """What stands against multiplying their rates, or None."""
    for part in (part for scheduler in carried for part in parts(scheduler)):
        name = type(part).__name__
        if plain_type(part) not in _KNOWN:
            return f"{name} is not one of torch's schedulers, so where it keeps its rates is not known"
        if getattr(part, "eta_min", 0.0) and not same(factors):
            return (
                f"{name} has one eta_min for all groups, whose factors differ ({', '.join(f'{f:g}' for f in factors)})"
            )
    return "it moves momentum as well as the rate" if writes_momentum(carried) else None


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


def forget_cycles(optimizer: Optimizer) -> None:
    """Take out of the groups what OneCycleLR and CyclicLR keep there, once their rates are written out.

    A fresh OneCycleLR goes by the bounds that it finds in the groups of a loaded state: without them it fails.
    """
    for group in optimizer.param_groups:
        for key in ("max_lr", "min_lr", "max_momentum", "base_momentum"):
            group.pop(key, None)


def notes(carried: Sequence[LRScheduler], factors: Sequence[float]) -> tuple[str, ...]:
    """Where a factor alone leaves the match: one `eps` of ReduceLROnPlateau cannot take several."""
    plateaus = [s for scheduler in carried for s in parts(scheduler) if isinstance(s, lr_scheduler.ReduceLROnPlateau)]
    return tuple(
        f"ReduceLROnPlateau has one eps for all groups, whose factors differ, and took the smallest: groups of a "
        f"larger factor go on being reduced where their rates had stopped, once a change is near eps, {s.eps:g} now"
        for s in plateaus
        if not same(factors)
    )


def carried(scheduler: object, optimizer: Optimizer) -> tuple[LRScheduler, ...]:
    """The schedulers to carry over, out of accelerate's wrappers; none of them for "none", or if there are none.

    scheduler is one or a sequence of them. Raises `InputError` for a scheduler of another optimizer or another kind,
    and where one exists but was not given.
    """
    if scheduler == "none":
        return ()
    several = scheduler if isinstance(scheduler, Sequence) and not isinstance(scheduler, str) else [scheduler]
    given = tuple(_checked(each, optimizer) for each in several if each is not None)
    known = {id(part) for each in given for part in parts(each)}
    _refuse_others(known, optimizer)
    if not given and any(hasattr(layer.step, "_wrapped_by_lr_sched") for layer in layers(optimizer)):  # type: ignore[attr-defined]
        raise InputError(  # its object may be out of the collector's sight, as after gc.freeze()
            "no scheduler was given, but one was made on this optimizer and would write its old rates; required "
            "is that scheduler: give scheduler=…, or scheduler='none' if it is not used any more"
        )
    return given


def _checked(scheduler: object, optimizer: Optimizer) -> LRScheduler:
    name = type(scheduler).__name__
    if type(scheduler).__module__.partition(".")[0] == "accelerate":
        scheduler = getattr(scheduler, "scheduler", scheduler)
    if isinstance(scheduler, str):
        raise InputError(f"scheduler is {scheduler!r}; required is a scheduler, 'none' or None")
    if not isinstance(scheduler, LRScheduler):
        raise InputError(
            f"the scheduler is a {name}; required is one of torch.optim.lr_scheduler: write its rates as a LambdaLR, "
            "or give scheduler='none' and multiply the rates that it writes by the factors that are returned"
        )
    if not _writes_to(scheduler, optimizer):
        raise InputError(f"the {name} belongs to another optimizer; required is the one made on this optimizer")
    return scheduler


def _refuse_others(known: Set[int], optimizer: Optimizer) -> None:
    """Refuse if a living scheduler of the optimizer is not one of those known: its next step writes old rates."""
    if not _others(known, optimizer):
        return
    gc.collect()  # some may only wait for this
    if others := _others(known, optimizer):
        raise InputError(
            f"{' and '.join(others)} of this optimizer {'is' if len(others) == 1 else 'are'} there too and would write "
            "its old rates; required is every scheduler that is still used: give scheduler=…, or a list of them, and "
            "delete those that are not used any more (scheduler='none' if none is)"
        )


def _others(known: Set[int], optimizer: Optimizer) -> list[str]:
    living = [each for each in gc.get_objects() if issubclass(type(each), LRScheduler) and id(each) not in known]
    return sorted(type(each).__name__ for each in living if _writes_to(each, optimizer))


def _writes_to(scheduler: LRScheduler, optimizer: Optimizer) -> bool:
    """Whether its optimizer is this one, or a wrapper of it: they share their groups."""
    groups = getattr(vars(scheduler).get("optimizer"), "param_groups", ())
    return any(written is group for written in groups for group in optimizer.param_groups)
