"""Advice as one JSON object."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightball.probe.record import Probe

if TYPE_CHECKING:
    from lightball.forecast.advice import Advice, ValueOfMomentum


def as_json(advice: Advice) -> dict[str, Any]:
    """The object that ``lightball advise --json`` prints; numbers that are not finite become null."""
    best, critical = advice.best_tuned, advice.critical_batch_size
    value = {
        "regime": advice.regime.name,
        "regime_reason": advice.regime.reason,
        "thresholds": advice.regime.thresholds,
        "terms": asdict(advice.terms),
        "value_of_momentum": _value(advice.value_of_momentum),
        "best_tuned": {**_ends(asdict(best), "range"), "verdict": str(best.verdict)},
        "critical_batch_size": critical.value,
        "critical_batch_size_range": [critical.low, critical.high],
        "critical_batch_size_reason": critical.reason,
        "matched_lr": advice.matched_lr,
        "matched_schedule": advice.matched_schedule,
        "memory_saved_bytes": advice.memory_saved_bytes,
        "recommendation": advice.recommendation,
        "what_would_change": list(advice.what_would_change),
        "more_batches": advice.more_batches,
        "probe": _probe(advice.by_phase[advice.main].phase.probe),
        "phases": [
            {
                "name": at.phase.name,
                "time": at.phase.time,
                "regime": at.regime.name,
                "terms": asdict(at.terms),
                "value_of_momentum": _value(at.value),
                "probe": _probe(at.phase.probe),
            }
            for at in advice.by_phase
        ],
        "setting": {
            **asdict(advice.setting),
            "effective_lr": advice.setting.effective_lr,
            "batch_size": advice.batch_size,
            "sampling": advice.sampling,
            "warm": advice.warm,
        },
    }
    return finite(value)  # type: ignore[no-any-return]


def _value(value: ValueOfMomentum) -> dict[str, Any]:
    return {**_ends(asdict(value), "ci95"), "verdict": str(value.verdict)}


def _ends(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """With ``low`` and ``high`` as one entry: a 95 % interval, or the range of what is assumed."""
    low, high = fields.pop("low"), fields.pop("high")
    return {**fields, name: None if low is None else [low, high]}


def _probe(probe: Probe) -> dict[str, Any]:
    """The numbers of a probe, without its measures; the whole of it is in :meth:`Probe.to_json`."""
    return {
        "loss": probe.loss,
        "gradient_norm_squared": asdict(probe.gradient_norm_squared),
        "gradient_curvature": probe.gradient_curvature,
        "trace_noise": asdict(probe.trace_noise),
        "noise_curvature": asdict(probe.noise_curvature),
        "noise_scale": asdict(probe.noise_scale),
        "preconditioned_noise_scale": asdict(probe.preconditioned_noise_scale),
        "sharpness": probe.sharpness.value,
        "smallest": probe.smallest.value,
        "trace": asdict(probe.trace),
        "num_parameters": probe.num_parameters,
        "training_examples": probe.training_examples,
        "gradient_examples": probe.gradient_examples,
        "noise_batches": probe.noise_batches,
        "curvature": probe.curvature,
        "curvature_examples": probe.curvature_examples,
        "mode": probe.mode,
        "notes": list(probe.notes),
    }


def finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, and lists for tuples."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
