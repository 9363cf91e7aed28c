"""Runs that ended without a result: what they score, and seeds that tell nothing.

Everything here is a function of which outcomes there are, never of the order in which they came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from lightball.errors import InputError
from lightball.studies.runs import MEASURES, Measure, Outcome, Run

_FIRST_CRASHES = 8


def lost_seeds(outcomes: Iterable[Outcome]) -> set[int]:
    """Seeds on which every one of these runs crashed, whatever its rule.

    They say nothing about a rule, and leaving them out favours none; fresh seeds take their place. A seed on which
    only some runs crashed stays: there the crash may be the rule's own doing.
    """
    crashed: dict[int, bool] = {}
    for outcome in outcomes:
        crashed[outcome.run.seed] = crashed.get(outcome.run.seed, True) and outcome.error is not None
    return {seed for seed, everywhere in crashed.items() if everywhere}


def complete(outcomes: Mapping[Run, Outcome], tuned: Collection[Outcome]) -> dict[Run, Outcome]:
    """The outcomes at one batch size, with untrained values for failed runs of which they are not known.

    They are those of another run of its seed, which has the same initial weights; else the mean over the ``tuned``
    runs; else, where no run reports them, the worst final values of those. Only tuning decides on what all seeds
    share, so that what a run scores never changes while a comparison goes on.
    """
    unknown = [o for o in outcomes.values() if o.failed and not all(map(math.isfinite, o.untrained.values()))]
    if not unknown:
        return dict(outcomes)
    of_seed: dict[int, dict[Measure, float]] = {}
    for run in sorted(outcomes):
        values = {m: v for m, v in outcomes[run].untrained.items() if math.isfinite(v)}
        of_seed[run.seed] = {**values, **of_seed.get(run.seed, {})}
    anywhere = {m: _of_finite([o.untrained[m] for o in tuned], _mean) for m in MEASURES}
    worst = {m: _of_finite([o.final[m] for o in tuned], max if m == "train_loss" else min) for m in MEASURES}

    def scored(outcome: Outcome) -> Outcome:
        sources = (outcome.untrained, of_seed[outcome.run.seed], anywhere, worst)
        values = {m: next((s[m] for s in sources if math.isfinite(s.get(m, math.nan))), math.nan) for m in MEASURES}
        return replace(outcome, untrained=values)

    return {**outcomes, **{o.run: scored(o) for o in unknown}}


def stop_if_all_crash(outcomes: Iterable[Outcome]) -> None:
    """A task that has never worked is not tried a thousand times.

    Raises:
        InputError: there are eight crashes or more, and no result.
    """
    outcomes = list(outcomes)
    if len(outcomes) >= _FIRST_CRASHES and all(o.error for o in outcomes):
        raise InputError(
            f"the first {len(outcomes)} runs all crashed, the last with: {outcomes[-1].error} (if the machine was at "
            "fault, run the same command again with --retry-failed; code that has changed makes another study)"
        )


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values)


def _of_finite(values: Iterable[float], statistic: Callable[[list[float]], float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return statistic(finite) if finite else math.nan
