"""Verdicts by phase: noise grows beside the gradient in training, so that what holds early need not hold late."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lightball.errors import InputError
from lightball.forecast.monitor.quick import ENDLESS
from lightball.forecast.monitor.record import Record, batch_of_balance
from lightball.forecast.phase import CurvePoint, Phase, Phases
from lightball.probe import Probe

_NAMES = ("early", "middle", "late")


@dataclass(frozen=True)
class PhaseVerdict:
    """One stretch of training, from its records.

    Args:
        name: early, middle or late.
        first, last: the steps of its first and last record.
        records: how many.
        regime: the most frequent one.
        value_of_momentum: the most frequent verdict: helps, hurts, no value, undecided, not determined.
        share: of the records that say so.
        noise_scale: the mean of tr Σ over the mean of ‖g‖²; inf where the gradient is not seen for noise.
        critical_batch_size: the mean of tr(HΣ) over the mean of gᵀHg; see :class:`Record`.
        sharpness: the largest one.
    """

    name: str
    first: int
    last: int
    records: int
    regime: str
    value_of_momentum: str
    share: float
    noise_scale: float
    critical_batch_size: float
    sharpness: float

    def __str__(self) -> str:
        return (
            f"{self.name:<6}  steps {self.first}–{self.last}: {self.regime}; momentum: {self.value_of_momentum} "
            f"({self.share:.0%} of {self.records}); noise scale {self.noise_scale:.3g}, critical batch size "
            f"{self.critical_batch_size:.3g}, sharpness {self.sharpness:.3g}"
        )


@dataclass(frozen=True)
class Summary:
    """Verdicts by phase; ``failed`` counts the records that hold an error instead."""

    phases: tuple[PhaseVerdict, ...]
    failed: int

    def __str__(self) -> str:
        lines = [str(phase) for phase in self.phases] or ["nothing measured yet"]
        return "\n".join([*lines, f"{self.failed} probes failed"] if self.failed else lines)


def phases_of_records(records: Sequence[Record]) -> Phases:
    """What advice is made of: the last probe of each third of the training so far, and the losses along it.

    Raises:
        InputError: no record has a probe, or the size of the training set is not known, without which there are no
            epochs to forecast.
    """
    probed = [record for record in records if record.probe is not None and record.flow_time is not None]
    if not probed:
        raise InputError("no record holds a probe: let the training go on to the monitor's first measurement")
    last = {name: inside[-1] for name, inside in _thirds(probed) if inside}
    phases = [Phase(name, r.flow_time or 0.0, Probe.from_json(r.probe)) for name, r in last.items()]
    if any(phase.probe.training_examples >= ENDLESS for phase in phases):
        raise InputError(
            "the records do not know the size of the training set, but advice needs it: "
            "give Monitor(training_examples=…) the number of its examples, and train on to its next measurements"
        )
    return Phases(tuple(phases), tuple(CurvePoint(r.flow_time or 0.0, r.loss or math.nan, r.sharpness) for r in probed))


def summary_of(records: Sequence[Record]) -> Summary:
    """The training so far in three phases of equal length; those without a record are left out."""
    measured = [record for record in records if record.error is None]
    phases = [_phase(name, inside) for name, inside in _thirds(measured) if inside]
    return Summary(tuple(phases), len(records) - len(measured))


def _thirds(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    end = records[-1].step if records else 0
    return [
        (name, [r for r in records if number * end < 3 * r.step <= (number + 1) * end])
        for number, name in enumerate(_NAMES)
    ]


def _phase(name: str, records: Sequence[Record]) -> PhaseVerdict:
    verdict, count = Counter(record.verdict for record in records).most_common(1)[0]
    regimes = Counter(record.regime or "not determined" for record in records)
    noise = sum(record.trace_noise.value for record in records if record.trace_noise)
    gradient = sum(record.gradient_norm_squared.value for record in records if record.gradient_norm_squared)
    return PhaseVerdict(
        name=name,
        first=records[0].step,
        last=records[-1].step,
        records=len(records),
        regime=regimes.most_common(1)[0][0],
        value_of_momentum=verdict,
        share=count / len(records),
        noise_scale=noise / gradient if gradient > 0 else math.inf,
        critical_batch_size=batch_of_balance(
            sum(record.noise_curvature or 0.0 for record in records),
            sum(record.gradient_curvature or 0.0 for record in records),
        ),
        sharpness=max(record.sharpness or 0.0 for record in records),
    )
