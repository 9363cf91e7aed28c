"""From a study to the tables of its figures, as pyarrow tables; what is not known is null."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lightball.studies.result import JUDGED, BatchResult, Pairing
from lightball.studies.runs import Measure, Outcome
from lightball.studies.study import BatchState, Study

TEXT, REAL, WHOLE, FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()
RULE = {"batch_size": WHOLE, "rule": TEXT, "momentum": REAL, "label": TEXT}
RATES = pa.schema(
    {
        **RULE,
        "effective_lr": REAL,
        "phase": TEXT,
        "runs": WHOLE,
        "failed": WHOLE,
        "crashed": WHOLE,
        **{name + end: REAL for name in JUDGED for end in ("", "_low", "_high")},
        "selected": FLAG,
        "stable": FLAG,
    }
)
DIFFERENCES = pa.schema(
    {
        "batch_size": WHOLE,
        "momentum": REAL,
        "measure": TEXT,
        "mean": REAL,
        "low": REAL,
        "high": REAL,
        "confidence": REAL,
        "margin": REAL,
        "verdict": TEXT,
        "pairs": WHOLE,
        "pairs_needed": WHOLE,
    }
)
SPEED = pa.schema({**RULE, "level": REAL, "epochs": REAL})


def label_of(momentum: float) -> str:
    """How figures and tables call a rule."""
    return f"SGDM β = {momentum:g}" if momentum else "SGD"


def rates(study: Study) -> pa.Table:
    """One row for each batch size, rule and effective learning rate.

    A row has the mean, smallest and largest score over the seeds of confirmation, or over those of tuning until all of
    the first stage are finished (``phase``); failed runs score what the untrained model does, and where all failed,
    only the mean is given. ``runs``, ``failed`` and ``crashed`` count both phases. ``stable`` marks the largest rate of
    a rule at and below which no run failed, where one failed above it.
    """
    rows = [row for batch in study.batches for momentum in rules(study) for row in _rates(batch, momentum)]
    return table(rows, RATES)


def differences(study: Study) -> pa.Table:
    """One row for each batch size, momentum and measure that has a decision; positive differences favour momentum."""
    rows = [
        {
            "batch_size": batch.batch_size,
            "momentum": pairing.arm.momentum,
            "measure": measure,
            "mean": decision.interval.mean,
            "low": decision.interval.low,
            "high": decision.interval.high,
            "confidence": decision.interval.confidence,
            "margin": decision.margin,
            "verdict": str(decision.verdict),
            "pairs": decision.interval.n,
            "pairs_needed": decision.pairs_needed,
        }
        for batch, pairing in _pairings(study)
        for measure, decision in pairing.decisions.items()
    ]
    return table(rows, DIFFERENCES)


def speed(study: Study) -> pa.Table:
    """Epochs until the loss that both rules of a pairing reach: two rows for each batch size and momentum."""
    rows = []
    for batch, pairing in _pairings(study):
        if pairing.speed:
            beta, level = pairing.arm.momentum, pairing.speed.level
            same = {"batch_size": batch.batch_size, "momentum": beta, "level": level}
            rows.append({**same, "rule": "SGD", "label": label_of(0), "epochs": pairing.speed.sgd})
            rows.append({**same, "rule": "SGDM", "label": label_of(beta), "epochs": pairing.speed.sgdm})
    return table(rows, SPEED)


def rules(study: Study) -> tuple[float, ...]:
    return (0.0, *study.request.settings.momentum)


def _pairings(study: Study) -> Iterator[tuple[BatchResult, Pairing]]:
    for batch in study.result.batches:
        for pairing in batch.pairings:
            yield batch, pairing


def rule_of(batch: BatchState, momentum: float) -> dict[str, Any]:
    rule = "SGDM" if momentum else "SGD"
    return {"batch_size": batch.batch_size, "rule": rule, "momentum": momentum, "label": label_of(momentum)}


def _rates(batch: BatchState, momentum: float) -> list[dict[str, Any]]:
    tuned, confirmed = (_by_rate(found, momentum) for found in (batch.tuned, batch.confirmed))
    if batch.result is None:  # rules would be shown with other seeds
        confirmed = {}
    choice = batch.choices.get(momentum)
    rows = []
    for rate in sorted({*tuned, *confirmed}):
        runs = confirmed.get(rate) or tuned[rate]
        every = [*tuned.get(rate, ()), *confirmed.get(rate, ())]
        row = {
            **rule_of(batch, momentum),
            "effective_lr": rate,
            "phase": "confirmation" if rate in confirmed else "tuning",
            "runs": len(every),
            "failed": sum(o.failed for o in every),
            "crashed": sum(o.error is not None for o in every),
            "selected": choice is not None and choice.effective_lr == rate,
            "stable": False,
        }
        for measure in JUDGED:
            row |= _summary(measure, runs)
        rows.append(row)
    first_failure = next((i for i, row in enumerate(rows) if row["failed"]), 0)
    if first_failure:
        rows[first_failure - 1]["stable"] = True
    return rows


def _by_rate(found: Mapping[Any, Outcome], momentum: float) -> dict[float, list[Outcome]]:
    by_rate: dict[float, list[Outcome]] = {}
    for run, outcome in found.items():
        if run.momentum == momentum:
            by_rate.setdefault(run.effective_lr, []).append(outcome)
    return by_rate


def _summary(measure: Measure, runs: Sequence[Outcome]) -> dict[str, float | None]:
    scores = np.array([o.score(measure) for o in runs])
    spread = not all(o.failed for o in runs)  # of untrained models nobody needs to know it
    low, high = (scores.min(), scores.max()) if spread else (None, None)
    return {measure: scores.mean(), f"{measure}_low": low, f"{measure}_high": high}


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; numbers that are not finite are null."""
    return pa.Table.from_pylist([{name: _known(value) for name, value in row.items()} for row in rows], schema)


def _known(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
