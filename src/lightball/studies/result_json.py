"""A result as one JSON object: the same facts as the text, for machines."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from lightball.stats import Decision, Interval
from lightball.studies.result import JUDGED, Arm, BatchResult, EqualRates, Pairing, Result


def as_json(result: Result) -> dict[str, Any]:
    """Plain dictionaries, lists and numbers; numbers that are not finite become null."""
    value = {
        "task": result.task,
        "batch_sizes": [_batch(batch) for batch in result.batches],
        "summary": {measure: asdict(result.summary(measure)) for measure in JUDGED},
        "settings": asdict(result.settings),
        "runs": {"computed": result.computed_runs, "reused": result.reused_runs, "crashed": result.crashed_runs},
        "seconds": result.seconds,
        "folder": result.folder,
    }
    return _finite(value)  # type: ignore[no-any-return]


def _batch(batch: BatchResult) -> dict[str, Any]:
    return {
        "batch_size": batch.batch_size,
        "margins": batch.margins,
        "margins_changed": batch.margins_changed,
        "lost_seeds": batch.lost_seeds,
        "last_error": batch.last_error,
        "sgd": _arm(batch.sgd),
        "sgdm": [_pairing(pairing) for pairing in batch.pairings],
        "equal_rates": [_equal(row) for row in batch.equal_rates],
    }


def _arm(arm: Arm) -> dict[str, Any]:
    value = asdict(arm)
    value["tuning"] = [asdict(score) for score in arm.tuning]
    return value


def _pairing(pairing: Pairing) -> dict[str, Any]:
    return {
        **_arm(pairing.arm),
        "difference": {name: _decision(decision) for name, decision in pairing.decisions.items()} or None,
        "loss_ratio": pairing.loss_ratio,
        "epochs_to_same_loss": asdict(pairing.speed) if pairing.speed else None,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "mean": decision.interval.mean,
        "interval": [decision.interval.low, decision.interval.high],
        "confidence": decision.interval.confidence,
        "margin": decision.margin,
        "stage": decision.stage,
        "n_pairs": decision.interval.n,
        "verdict": str(decision.verdict),
        "pairs_needed": decision.pairs_needed,
    }


def _equal(row: EqualRates) -> dict[str, Any]:
    def interval(i: Interval) -> dict[str, Any]:
        return {"mean": i.mean, "interval": [i.low, i.high], "confidence": i.confidence, "n_pairs": i.n}

    return {
        "effective_lr": row.effective_lr,
        "momentum": row.momentum,
        "failed": {"sgd": row.failed_sgd, "sgdm": row.failed_sgdm},
        "difference": {name: interval(i) for name, i in row.differences.items()},
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
