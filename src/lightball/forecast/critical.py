"""The batch size from which momentum pays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from lightball.forecast.best_tuned import BestTuned, best_tuned
from lightball.forecast.phase import Phases


@dataclass(frozen=True)
class CriticalBatchSize:
    """Where the best-tuned gap crosses the margin, interpolated in log B; None where it does not or nothing is known.

    ``low`` and ``high`` are where the ends of the gap's interval cross it; ``reason`` says what a None means, as in
    "momentum does not pay up to the training set".
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str


def critical_batch_size(
    phases: Phases, momentum: float, *, epochs: int, margin: float | None = None
) -> CriticalBatchSize:
    """The smallest batch size from which momentum pays, both rules at their best rates over ``epochs``.

    Cost: :func:`best_tuned` at every √2 in batch size, milliseconds.

    Raises:
        InputError: as :func:`best_tuned`.
    """
    examples = phases.phases[0].probe.training_examples
    sizes = sorted({min(examples, round(2 ** (i / 2))) for i in range(2 * math.ceil(math.log2(max(examples, 2))) + 1)})
    found = [(size, best_tuned(phases, momentum, size, epochs=epochs, margin=margin)) for size in sizes]
    usable = [(size, at) for size, at in found if at.valid]
    if not usable:
        return CriticalBatchSize(None, None, None, found[-1][1].reason)
    value = _crossing(usable, lambda at: at.difference)
    ends = [_crossing(usable, lambda at: at.high), _crossing(usable, lambda at: at.low)]
    reason = ""
    if value is None:
        reason = f"momentum does not pay up to a batch of {usable[-1][0]}, the largest that can be told"
    elif value <= usable[0][0] * (1 + 1e-9):
        reason = f"momentum pays at {usable[0][0]} already, the smallest batch that can be told"
        if ends[1] is None or ends[1] > usable[0][0]:
            known = "" if ends[1] is None else f", and from {ends[1]:.0f} on whatever is assumed"
            reason = f"momentum may pay at {usable[0][0]} already, the smallest batch that can be told{known}"
    return CriticalBatchSize(value, ends[0], ends[1], reason)


def _crossing(found: list[tuple[int, BestTuned]], of: Callable[[BestTuned], float | None]) -> float | None:
    """Where the gap last rises above the margin; the smallest size if it is always above, None if never."""
    over = [(math.log(size), (of(at) or 0.0) - (at.margin or 0.0)) for size, at in found]
    for (a, below), (b, above) in reversed(list(pairwise(over))):
        if below <= 0 < above:
            return math.exp(a + (b - a) * below / (below - above))
    return math.exp(over[0][0]) if over[-1][1] > 0 else None
