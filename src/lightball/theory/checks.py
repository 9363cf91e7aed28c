"""Checks that several experiments share; each raises `InputError` with what to do."""

from __future__ import annotations

from collections.abc import Sequence

from lightball.errors import InputError
from lightball.stats.orders import LEAST_GROUPS


def check_momenta(momenta: Sequence[float]) -> None:
    """Refuse values of β outside [0, 1), none at all, and one given twice."""
    for momentum in momenta:
        if not 0 <= momentum < 1:
            raise InputError(f"momentum is {momentum:g}; required is 0 ≤ momentum < 1: try 0.9")
    if not momenta or len(set(momenta)) < len(momenta):
        raise InputError(f"momenta are {list(momenta)}; required is one or more, each once")


def check_rates(etas: Sequence[float], horizon: float, example: str) -> None:
    """Refuse fewer than two different learning rates, for an order needs two, and those outside (0, T]."""
    if len(set(etas)) < 2 or not all(0 < eta <= horizon for eta in etas):
        raise InputError(
            f"the rates are {listed(etas)}; required are two or more different ones above 0 and up to T = "
            f"{horizon:g}: try {example}"
        )


def check_trajectories(number: int, *, none_allowed: bool) -> None:
    """Refuse fewer than an interval of a largest error takes; 0 is for none where that is allowed."""
    if number < LEAST_GROUPS and not (none_allowed and number == 0):
        less = ", or 0 for none" if none_allowed else ""
        raise InputError(f"trajectories is {number}; required are at least {LEAST_GROUPS}{less}")


def listed(values: Sequence[float]) -> str:
    """Numbers in a message: 1, 0.1."""
    return ", ".join(f"{value:g}" for value in values)
