"""The pairs of a part at the rate that both rules run at: their scores and the gap between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightball.stats import Decision, Interval, mean_and_standard_error, paired_t_interval
from lightball.studies.judging import differences
from lightball.studies.result import JUDGED, Judged
from lightball.studies.runs import Outcome
from lightball.studies.study import BatchState
from lightball.studies.tuning import Choice

RULES = ("SGD", "SGDM")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """Over seeds."""

    mean: float
    se: float


@dataclass(frozen=True)
class Pairs:
    """The pairs at one value of what an experiment varies, such as ℓ or the batch size: ``at``.

    A run that failed scores what the untrained model does. ``scores`` by rule, ``gaps`` with 95 % intervals, positive
    where SGDM is ahead, ``decisions`` those of the study, ``by_seed`` the difference of each pair; all by measure.
    ``failed`` counts runs by rule.
    """

    at: int
    count: int
    scores: Mapping[str, Mapping[Judged, Mean]]
    gaps: Mapping[Judged, Interval]
    decisions: Mapping[Judged, Decision]
    by_seed: Mapping[Judged, Mapping[int, float]]
    failed: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "pairs": self.count,
            "failed": dict(self.failed),
            "scores": {rule: {m: asdict(mean) for m, mean in of.items()} for rule, of in self.scores.items()},
            "gaps": {measure: asdict(interval) for measure, interval in self.gaps.items()},
            "verdicts": {measure: str(decision.verdict) for measure, decision in self.decisions.items()},
            "by_seed": {measure: {str(seed): d for seed, d in of.items()} for measure, of in self.by_seed.items()},
        }


def choice_of(batch: BatchState) -> Choice | None:
    """What was selected for SGDM, None while it is tuned; there is one SGDM."""
    return next((choice for momentum, choice in batch.choices.items() if momentum), None)


def pairs_of(at: int, batch: BatchState, rate: float, momentum: float) -> Pairs | None:
    """The pairs at an effective rate of which both runs are finished, once there are two."""
    runs: dict[float, dict[int, Outcome]] = {0.0: {}, momentum: {}}
    for run, outcome in batch.confirmed.items():
        if run.effective_lr == rate:
            runs[run.momentum][run.seed] = outcome
    seeds = [seed for seed, outcome in runs[0.0].items() if _scored(outcome) and _scored(runs[momentum].get(seed))]
    if len(seeds) < 2:
        return None
    sgd, sgdm = arms = [[of[seed] for seed in seeds] for of in runs.values()]
    by_seed = {m: dict(zip(seeds, differences(sgd, sgdm, m).tolist(), strict=True)) for m in JUDGED}
    return Pairs(
        at,
        len(seeds),
        dict(zip(RULES, map(_means, arms), strict=True)),
        {measure: paired_t_interval([*values.values()], CONFIDENCE) for measure, values in by_seed.items()},
        batch.result.pairings[0].decisions if batch.result else {},
        by_seed,
        {rule: sum(outcome.failed for outcome in of) for rule, of in zip(RULES, arms, strict=True)},
    )


def _scored(outcome: Outcome | None) -> bool:
    """Whether it is there, and did not crash where nothing tells what it scores."""
    return outcome is not None and all(math.isfinite(outcome.score(measure)) for measure in JUDGED)


def _means(outcomes: Sequence[Outcome]) -> dict[Judged, Mean]:
    return {measure: Mean(*mean_and_standard_error([o.score(measure) for o in outcomes])) for measure in JUDGED}
