"""How many pairs an undecided comparison would take."""

import math

from lightball.errors import InputError
from lightball.stats.checks import check_margin
from lightball.stats.intervals import t_multiplier

MOST_PAIRS = 1_000_000
"""A need beyond this many pairs is reported as None: nobody will run them."""


def pairs_needed(mean: float, standard_deviation: float, margin: float, confidence: float) -> int | None:
    """Smallest n ≥ 2 whose t interval would clear the margin if mean and deviation stay as they are.

    That is the smallest n with t_{n−1, (1+confidence)/2} · s/√n < | |mean| − margin |. The left side falls in
    n, so bisection finds it. None if the mean lies exactly at the margin, or if n would exceed `MOST_PAIRS`.
    Being computed from an estimated mean it is itself an estimate, for planning and not a claim.
    Cost: about 20 quantiles of t.

    Raises:
        InputError: mean not finite, deviation below 0 or nan, margin not above 0, confidence outside (0, 1).
    """
    check_margin(margin)
    if not (math.isfinite(mean) and standard_deviation >= 0):
        raise InputError(
            f"the mean is {mean} and the standard deviation {standard_deviation}; "
            "a finite mean and a deviation of at least 0 are required: take both from finite differences"
        )
    distance = abs(abs(mean) - margin)

    def clears(n: int) -> bool:
        return t_multiplier(confidence, n) * (standard_deviation / math.sqrt(n)) < distance

    if not clears(MOST_PAIRS):
        return None
    below, enough = 1, MOST_PAIRS
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if clears(middle) else (middle, enough)
    return enough
