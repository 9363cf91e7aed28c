"""Training curves at the selected rates as tables, thinned to what a page can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lightball.report.tables import REAL, RULE, WHOLE, rule_of, rules, table
from lightball.studies.judging import score_curves
from lightball.studies.runs import Outcome
from lightball.studies.study import BatchState, Study

POINTS_OF_MEAN = 80  # of a mean curve, at most
POINTS_OF_SINGLES = 40_000  # of all single curves together
FEWEST_POINTS = 20
MOST_PAIRS = 64

CURVES = pa.schema({**RULE, "epoch": REAL, "loss": REAL, "low": REAL, "high": REAL, "runs": WHOLE})
PAIRS = pa.schema({**RULE, "pair": WHOLE, "epoch": pa.list_(REAL), "loss": pa.list_(REAL)})


@dataclass(frozen=True)
class Curves:
    """Training curves at the selected rates; ``thinned`` says what was left out, "" if nothing was."""

    means: pa.Table
    pairs: pa.Table
    thinned: str


def curves(study: Study) -> Curves:
    """The training curves of the confirmed runs at the selected rates, thinned to what a page can hold."""
    arms = [_Curve(batch, m, _at_selected(batch, m)) for batch in study.batches for m in rules(study)]
    arms = [arm for arm in arms if arm.losses.size]
    means: list[dict[str, Any]] = []
    for arm in arms:
        kept = _spread(arm.num_points, POINTS_OF_MEAN)
        losses = arm.losses[:, kept]
        columns = zip(kept, losses.mean(axis=0), losses.min(axis=0), losses.max(axis=0), strict=True)
        means += [
            {**arm.rule, "epoch": k, "loss": m, "low": low, "high": high, "runs": len(losses)}
            for k, m, low, high in columns
        ]
    points, pairs = _budget(arms)
    singles = [row for arm in arms for row in arm.singles(points, pairs)]
    return Curves(table(means, CURVES), table(singles, PAIRS), _thinned(arms, points, pairs))


class _Curve:
    """The curves of one rule at one batch size, a row for each run by seed."""

    def __init__(self, batch: BatchState, momentum: float, runs: Sequence[Outcome]) -> None:
        self.losses = score_curves(runs)
        self.num_points = self.losses.shape[1]
        self.rule = rule_of(batch, momentum)
        numbers = {seed: number for number, seed in enumerate(_seeds(batch), start=1)}
        self._pairs = [numbers[run.run.seed] for run in runs]

    def singles(self, points: int, pairs: int) -> Iterator[dict[str, Any]]:
        kept = _spread(self.num_points, points)
        for number, losses in zip(self._pairs, self.losses, strict=True):
            if number <= pairs:
                yield {**self.rule, "pair": number, "epoch": kept.tolist(), "loss": losses[kept].tolist()}


def _budget(arms: Sequence[_Curve]) -> tuple[int, int]:
    """Points of a single curve and pairs that are shown: first fewer points, then fewer pairs."""
    if not arms:
        return 0, 0
    longest, most = max(arm.num_points for arm in arms), min(max(len(arm.losses) for arm in arms), MOST_PAIRS)
    points = min(longest, max(FEWEST_POINTS, POINTS_OF_SINGLES // (len(arms) * most)))
    return points, max(1, min(most, POINTS_OF_SINGLES // (len(arms) * points)))


def _thinned(arms: Sequence[_Curve], points: int, pairs: int) -> str:
    said = []
    longest = max((arm.num_points for arm in arms), default=0)
    most = max((len(arm.losses) for arm in arms), default=0)
    if longest > POINTS_OF_MEAN:
        said.append(f"mean curves show {POINTS_OF_MEAN} of {longest} points")
    if longest > points:
        said.append(f"single ones {points} of {longest}")
    if most > pairs:
        said.append(f"the first {pairs} of {most} pairs can be shown")
    return ", ".join(said)


def _spread(count: int, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """At most ``most`` of ``count`` indices, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _seeds(batch: BatchState) -> list[int]:
    """Those of the confirmation in a fixed order."""
    return list(dict.fromkeys(run.seed for run in batch.confirmed))


def _at_selected(batch: BatchState, momentum: float) -> list[Outcome]:
    """The runs of the rule that have been judged: those of later stages are finished for one rule first."""
    if batch.result is None:
        return []
    arms = (batch.result.sgd, *(pairing.arm for pairing in batch.result.pairings))
    (arm,) = (arm for arm in arms if arm.momentum == momentum)
    runs = [o for run, o in batch.confirmed.items() if (run.momentum, run.effective_lr) == (momentum, arm.effective_lr)]
    return runs[: arm.runs]
