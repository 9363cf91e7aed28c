"""Whether a simulation agrees with what is exact."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lightball.dynamics.weak_error import WeakError
from lightball.stats.orders import Z95

_LEAST = 0.8  # of 95 % intervals; those of one run hold or miss together
_ROUNDING = 1e-9  # of the largest exact error: where there is no noise, an interval is nothing but rounding
_REACH = 1e140  # trajectories beyond it count as diverged, though what is exact may still be finite


def agreement(near: int, total: int, what: str) -> str:
    """The end of a sentence about a simulation: in how many places its 95 % intervals hold ``what``."""
    verdict = "agrees" if near >= _LEAST * total else "does not agree"
    return f"{verdict}: {near} of {total} of its 95 % intervals hold {what}."


def held(pairs: Iterable[tuple[WeakError, WeakError | None]]) -> tuple[int, int]:
    """How many 95 % intervals of simulated errors hold the exact ones beside them, and of how many.

    ``pairs`` are (exact, simulated), the latter at some of the rates. Where both have diverged nothing is counted;
    where the simulation alone has, it misses.
    """
    near = total = 0
    for exact, simulated in pairs:
        if simulated is None:
            continue
        known = dict(zip(exact.etas, exact.errors, strict=True))
        rounding = _ROUNDING * max((error for error in exact.errors if math.isfinite(error)), default=0.0)
        columns = zip(simulated.etas, simulated.errors, simulated.standard_errors, strict=True)
        for eta, error, se in columns:
            if math.isinf(error):
                total += known[eta] < _REACH
            else:
                total += 1
                near += abs(error - known[eta]) <= Z95 * se + rounding
    return near, total
