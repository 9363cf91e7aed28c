"""The rest of a run's learning rates written out, for schedulers that cannot be carried over by a factor."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightball.errors import InputError, reason_of
from lightball.optim.conversion.rule import GroupRule
from lightball.rules import averaged_schedule

if TYPE_CHECKING:
    from jaxtyping import Float64


class WrittenOutLR(LRScheduler):
    """Rates from a table, rates[group][step]; the last ones stay after its end.

    The first column is that of the step `first`, counted as the scheduler did that it stands for. Its state holds
    the table.
    """

    def __init__(self, optimizer: Optimizer, rates: Sequence[Sequence[float]], first: int = 0) -> None:
        self.rates = [list(row) for row in rates]
        self.first = first
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        super().__init__(optimizer, last_epoch=first - 1)

    def get_lr(self) -> list[Any]:
        """The column of the present step."""
        return [row[min(max(self.last_epoch - self.first, 0), len(row) - 1)] for row in self.rates]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's. Raises `InputError` for the state of another scheduler, which has no such table."""
        if "rates" not in state_dict:
            raise InputError(
                f"the state is of step {state_dict.get('last_epoch', '?')}, before the scheduler's rates were written "
                "out; required is a state saved afterwards: to go back, make optimizer and scheduler anew, load, and "
                "drop momentum again"
            )
        super().load_state_dict(state_dict)


def ahead(
    optimizer: Optimizer, scheduler: LRScheduler | None, num_steps: int
) -> tuple[Float64[np.ndarray, "group step"], Float64[np.ndarray, "group step"]]:
    """The rates and momenta of the next num_steps steps, by running a copy; the scheduler is as it was.

    Raises `InputError` where a copy cannot be run without more, as for rates that follow a metric.
    """
    stand_in = _stand_in(optimizer)
    rows = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps of a scheduler without steps of its optimizer
            copied = None if scheduler is None else copy.deepcopy(scheduler, {id(scheduler.optimizer): stand_in})
            for number in range(num_steps):
                if number and copied is not None:
                    copied.step()
                rows.append([(float(each["lr"]), _momentum(each, number)) for each in stand_in.param_groups])
    except Exception as error:
        raise InputError(
            f"a copy of {type(scheduler).__name__} cannot be run {num_steps} steps ahead: {reason_of(error)}; required "
            "is a scheduler that needs no metric, and as many steps as it has left: correct num_steps"
        ) from error
    rates, momenta = np.moveaxis(np.array(rows, dtype=np.float64), -1, 0)
    return rates.T, momenta.T


def _momentum(group: dict[str, Any], number: int) -> float:
    """At the step after `number` others: what lightball.optim.SGD's schedule says, or what the scheduler wrote."""
    schedule = group.get("momentum_schedule")
    return float(schedule(group["momentum_step"] + number) if schedule else group["momentum"])


def _stand_in(optimizer: Optimizer) -> Optimizer:
    """An optimizer with the same numbers in its groups and one small parameter in each."""
    left_out = ("params", "param_names")
    numbers = [{key: value for key, value in group.items() if key not in left_out} for group in optimizer.param_groups]
    return torch.optim.SGD([{**copy.deepcopy(each), "params": [torch.zeros(1)]} for each in numbers], lr=0.0)


def averaged(
    rates: Float64[np.ndarray, " step"], momenta: Float64[np.ndarray, " step"], rule: GroupRule
) -> tuple[Float64[np.ndarray, " step"], float]:
    """SGD's rates that move each gradient as far in all as momentum would, and the buffer's pending displacement.

        torch      rate_j = (1 − dampening) Σ_{s ≥ j} γ_s Π_{τ=j+1..s} μ_τ     pending = Σ_s γ_s Π_{τ=0..s} μ_τ
        Nesterov   rate_j = γ_j + Σ_{s ≥ j} γ_s μ_s Π_{τ=j+1..s} μ_τ           pending with γ_s μ_s for γ_s
        canonical  the averaged schedule itself                                pending as for torch

    From the averaged schedule, which has the factor 1 − μ_j. The run ends with the last rate. Source:
    arXiv:2307.15196.
    """
    weights = rates * momenta if rule.nesterov else rates
    canonical = averaged_schedule(weights, momenta)
    sums = canonical / (1 - momenta)
    pending = float(momenta[0] * sums[0])
    if rule.canonical:
        return canonical, pending
    if rule.nesterov:
        return rates + sums, pending
    return np.where(momenta > 0, 1 - rule.dampening, 1.0) * sums, pending


def write_out(scheduler: LRScheduler | None, optimizer: Optimizer, rates: Sequence[Sequence[float]]) -> LRScheduler:
    """A `WrittenOutLR`: the scheduler's own object, so that no loop goes on with the rates of before, or a new one."""
    if scheduler is None:
        return WrittenOutLR(optimizer, rates)
    first = getattr(scheduler, "last_epoch", 0)  # ChainedScheduler counts nothing
    vars(scheduler).clear()
    scheduler.__class__ = WrittenOutLR
    WrittenOutLR.__init__(scheduler, optimizer, rates, first)  # type: ignore[arg-type]
    return scheduler
