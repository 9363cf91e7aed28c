"""Runs that ended without a result: what they score, and seeds that tell nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lightball.errors import InputError
from lightball.studies.runs import MEASURES, Outcome, Run

_FIRST_CRASHES = 8


def lost_seeds(outcomes: Iterable[Outcome]) -> set[int]:
    """Seeds on which every run crashed, whatever its rule and rate.

    They say nothing about a rule, and leaving them out favours none; fresh seeds take their place. A seed on which
    only some runs crashed stays: there the crash may be the rule's own doing.
    """
    crashed: dict[int, bool] = {}
    for outcome in outcomes:
        crashed[outcome.run.seed] = crashed.get(outcome.run.seed, True) and outcome.error is not None
    return {seed for seed, everywhere in crashed.items() if everywhere}


def complete(outcomes: Mapping[Run, Outcome]) -> dict[Run, Outcome]:
    """The outcomes at one batch size, with untrained values for failed runs of which they are not known.

    They are those of another run of its seed, which has the same initial weights; else the mean over all seeds; else,
    where no run reports them, the worst final values of all runs.
    """
    unknown = [o for o in outcomes.values() if o.failed and not all(map(math.isfinite, o.untrained.values()))]
    if not unknown:
        return dict(outcomes)
    others = [o for o in outcomes.values() if not o.error]
    of_seed = {o.run.seed: o.untrained for o in others}
    anywhere = {m: _of_finite([o.untrained[m] for o in others], _mean) for m in MEASURES}
    worst = {m: _of_finite([o.final[m] for o in others], max if m == "train_loss" else min) for m in MEASURES}

    def scored(outcome: Outcome) -> Outcome:
        sources = (outcome.untrained, of_seed.get(outcome.run.seed, {}), anywhere, worst)
        values = {m: next((s[m] for s in sources if math.isfinite(s.get(m, math.nan))), math.nan) for m in MEASURES}
        return replace(outcome, untrained=values)

    return {**outcomes, **{o.run: scored(o) for o in unknown}}


def stop_if_all_crash(outcomes: Iterable[Outcome]) -> None:
    """A task that has never worked is not tried a thousand times.

    Raises:
        InputError: there are eight crashes and no result.
    """
    errors = []
    for outcome in outcomes:
        if outcome.error is None:
            return
        errors.append(outcome.error)
        if len(errors) == _FIRST_CRASHES:
            raise InputError(
                f"the first {len(errors)} runs all crashed, the last with: {errors[-1]} (mend it and run the same "
                "command again with --retry-failed)"
            )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _of_finite(values: Iterable[float], statistic: Callable[[list[float]], float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return statistic(finite) if finite else math.nan
