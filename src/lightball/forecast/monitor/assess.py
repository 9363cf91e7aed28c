"""From a probe to what is told about a step: terms, regime, value of momentum."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from lightball.errors import InputError
from lightball.forecast.forecast import forecast
from lightball.forecast.monitor.live import Live
from lightball.forecast.monitor.pairs import GradientPairs
from lightball.forecast.monitor.quick import with_trace_noise
from lightball.forecast.monitor.record import Record
from lightball.forecast.regime import regime_of, terms_of
from lightball.oracles import SamplingKind
from lightball.probe.estimates import Estimate
from lightball.probe.record import Probe

_ENOUGH_PAIRS = 8


@dataclass(frozen=True)
class Outlook:
    """What is forecast from every record.

    Args:
        num_steps: so many steps ahead.
        momentum: of SGDM where the run has none.
        sampling: of minibatches: "iid" or "shuffle", the latter only where the size of the training set is known.

        margin: the difference in loss that does not matter; by default 1 % of the loss at the record.

    Raises:
        InputError: a number of steps, a momentum or a margin out of range.
    """

    num_steps: int = 50
    momentum: float = 0.9
    sampling: SamplingKind = "iid"
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"num_steps is {self.num_steps}, but must be at least 1")
        if not 0 < self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}, but must be above 0 and below 1")
        if self.sampling not in ("iid", "shuffle"):
            raise InputError(f"sampling is {self.sampling!r}, but must be 'iid' or 'shuffle'")
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise InputError(f"margin is {self.margin}, but must be finite and above 0 (left out: 1 % of the loss)")


def assessed(
    probe: Probe,
    now: Live,
    pairs: GradientPairs,
    batch_size: int,
    outlook: Outlook,
    *,
    step: int,
    flow_time: float,
) -> Record:
    """The record of a step."""
    of_pairs = _of_pairs(probe, now, pairs)
    probe, notes = _with_pairs(probe, of_pairs)
    record = Record(
        step,
        loss=probe.loss,
        lr=now.lr,
        effective_lr=now.effective_lr,
        momentum=now.momentum,
        batch_size=batch_size,
        gradient_norm_squared=probe.gradient_norm_squared,
        trace_noise=probe.trace_noise,
        trace_noise_of_pairs=of_pairs,
        noise_scale=probe.noise_scale,
        gradient_curvature=probe.gradient_curvature,
        noise_curvature=probe.noise_curvature.value,
        sharpness=probe.sharpness.value,
        sharpness_examples=probe.curvature_examples,
        num_steps=outlook.num_steps,
        margin=outlook.margin,
        flow_time=flow_time,
        reason=now.obstacle,
        notes=notes,
        probe=probe.to_json(),
    )
    return record if now.effective_lr is None else _forecast(record, probe, now.effective_lr, batch_size, outlook)


def _forecast(record: Record, probe: Probe, effective_lr: float, batch_size: int, outlook: Outlook) -> Record:
    """The record with what depends on the rate."""
    terms = asdict(terms_of(probe, effective_lr, batch_size))
    record = replace(record, terms=terms, regime=regime_of(probe, effective_lr, batch_size).name)
    if record.reason:
        return record
    try:
        found = forecast(
            probe,
            effective_lr,
            record.momentum or outlook.momentum,
            batch_size=batch_size,
            num_steps=outlook.num_steps,
            sampling=outlook.sampling,
        )
    except InputError as error:  # such as a rate of 0 at the start of a warmup; what was measured stays
        return replace(record, reason=str(error))
    # A number that the forecast does not stand by would end in somebody's chart.
    told = found.value if found.validity.valid else None
    return replace(record, value_of_momentum=told, valid=found.validity.valid, reason=found.validity.reason)


def _with_pairs(probe: Probe, of_pairs: Estimate | None) -> tuple[Probe, tuple[str, ...]]:
    """The probe with tr Σ from pairs where they say more and do not contradict it; with a note where they do."""
    own = probe.trace_noise
    if of_pairs is None or of_pairs.n < _ENOUGH_PAIRS:
        return probe, ()
    if max(own.low, of_pairs.low) > min(own.high, of_pairs.high):
        note = (
            f"pairs of gradients of training say tr Σ = {of_pairs}, the probe {own}, which is used: either it changes "
            "fast, or the backward passes are not those of the loss (scaled, or with terms that the loss has not)"
        )
        return probe, (note,)
    sharper = of_pairs.high - of_pairs.low < own.high - own.low
    return (with_trace_noise(probe, of_pairs) if sharper else probe), ()


def _of_pairs(probe: Probe, now: Live, pairs: GradientPairs) -> Estimate | None:
    """tr Σ from pairs; the move between the two of a pair is taken off for SGD."""
    if now.effective_lr is None or now.lr is None:
        return pairs.estimate()
    lr, mass = now.lr, probe.noise.mass
    grown = probe.noise.integral(lambda h: 1 + lr * h + 0.5 * (lr * h) ** 2)
    drift = now.effective_lr**2 * max(probe.gradient_integral(lambda h: h**2), 0.0)
    return pairs.estimate(max(grown / mass, 0.1) if mass > 0 else 1.0, drift)
