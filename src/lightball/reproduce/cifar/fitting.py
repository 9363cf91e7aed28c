"""How much of an experiment fits a time: the values of ℓ and the epochs, from what a step was measured to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightball.errors import InputError

FEWEST_EPOCHS = 4  # fewer say nothing
WANTED_EPOCHS = 12  # rather so many of them than another value of ℓ
MOST_EPOCHS = 160


@dataclass(frozen=True)
class Cost:
    """Of one ℓ: the runs there, and what one epoch of one of them takes."""

    runs: int
    seconds_per_epoch: float


@dataclass(frozen=True)
class Fit:
    """What to run, and about how many seconds it takes. It may be more than there are: see :func:`fit`."""

    ells: tuple[int, ...]
    epochs: int
    seconds: float


def fit(costs: Mapping[int, Cost], seconds: float, ways: Sequence[Sequence[int]], epochs: int | None = None) -> Fit:
    """The first way that leaves time for the epochs that are wanted, or the last one with as many as there is time for.

    Never fewer than 4 epochs nor more than 160, be there time or not.

    Args:
        costs: by ℓ, workers at the side of each other taken into account.
        seconds: that all runs together may take.
        ways: values of ℓ to run, the best way first.
        epochs: asked for; only ℓ is then chosen.

    Raises:
        InputError: there is no way, or no time.
    """
    if not ways or seconds <= 0:
        raise InputError(
            f"there are {len(ways)} ways to spend {seconds:g} s; at least one and more than 0 s are needed"
        )
    for way in ways:
        of_epoch = sum(costs[ell].runs * costs[ell].seconds_per_epoch for ell in way)
        possible = int(seconds / of_epoch)
        if possible >= (epochs or WANTED_EPOCHS):
            break
    chosen = epochs or min(max(possible, FEWEST_EPOCHS), MOST_EPOCHS)
    return Fit(tuple(way), chosen, chosen * of_epoch)
