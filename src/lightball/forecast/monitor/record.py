"""What a monitor found at one step, as a line of JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lightball.probe.estimates import Estimate
from lightball.stats import Interval, Verdict, verdict_of

_MARGIN, _LEAST_MARGIN = 0.01, 1e-12
_ESTIMATES = ("gradient_norm_squared", "trace_noise", "trace_noise_of_pairs", "noise_scale", "value_of_momentum")


@dataclass(frozen=True)
class Record:
    """A step of training, measured; what could not be told is None.

    Args:
        step: how many steps had been made.
        error: why nothing was measured, in one line; then all else but ``flow_time`` is as it is by default.
        seconds: what measuring took.
        loss: mean loss of the probe's microbatches at the weights of this step.
        lr, effective_lr, momentum: of the optimizer at this step; η of the canonical form, and β.
        batch_size: examples of a step.
        gradient_norm_squared: ‖g‖², debiased.
        trace_noise: tr Σ that the other numbers use: ``trace_noise_of_pairs`` where that is sharper and agrees with
            the probe's, else the probe's.
        trace_noise_of_pairs: from gradients that training computed since the last record.
        noise_scale: tr Σ/‖g‖².
        gradient_curvature: gᵀHg, debiased.
        noise_curvature: tr(HΣ).
        sharpness: the largest curvature found, a lower bound of λ_max.
        sharpness_examples: the examples that curvature is taken over; few make it too large.
        terms: of the expected change of loss by a step of SGD at ``effective_lr``: descent, curvature, noise.
        regime: which of them limits the run.
        value_of_momentum: loss of SGD minus that of SGDM after ``num_steps`` from here; positive favours momentum.
        num_steps: see above.
        margin: the difference in loss that does not matter; None for 1 % of ``loss``.
        flow_time: Σ η of the steps so far.
        valid, reason: whether the forecast can be trusted, and why not.
        notes: what a reader of these numbers should know.
        probe: the whole probe as JSON, for :meth:`lightball.probe.Probe.from_json`.
    """

    step: int
    error: str | None = None
    seconds: float | None = None
    loss: float | None = None
    lr: float | None = None
    effective_lr: float | None = None
    momentum: float | None = None
    batch_size: int | None = None
    gradient_norm_squared: Estimate | None = None
    trace_noise: Estimate | None = None
    trace_noise_of_pairs: Estimate | None = None
    noise_scale: Estimate | None = None
    gradient_curvature: float | None = None
    noise_curvature: float | None = None
    sharpness: float | None = None
    sharpness_examples: int | None = None
    terms: Mapping[str, float] | None = None
    regime: str | None = None
    value_of_momentum: Estimate | None = None
    num_steps: int | None = None
    margin: float | None = None
    flow_time: float | None = None
    valid: bool = False
    reason: str = ""
    notes: tuple[str, ...] = ()
    probe: Mapping[str, Any] | None = None

    @property
    def verdict(self) -> str:
        """Whether momentum helps from here at the present settings, as far as the forecast is valid.

        "helps" or "hurts" by more than the margin, "no value" within it, "undecided" where the interval does not tell,
        "not determined" without a valid forecast.
        """
        value = self.value_of_momentum
        if value is None or not self.valid:
            return "not determined"
        if not value.determined:
            return Verdict.UNDECIDED.value
        margin = self.margin or max(_MARGIN * abs(self.loss or 0.0), _LEAST_MARGIN)
        return verdict_of(Interval(value.value, value.low, value.high, 0.95, max(value.n, 1)), margin).value

    @property
    def critical_batch_size(self) -> float | None:
        """tr(HΣ)/gᵀHg, at which the noise and the curvature of a step cost the same.

        Below it noise limits the rate, and momentum has nothing to gain over a well-chosen rate; above it curvature
        does. It is inf where gᵀHg is not seen for noise.
        """
        if self.noise_curvature is None or self.gradient_curvature is None:
            return None
        return batch_of_balance(self.noise_curvature, self.gradient_curvature)

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite are null, an estimate is [value, low, high, n]."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _plain(value) for name, value in values.items()} | {
            "critical_batch_size": _plain(self.critical_batch_size),
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """The record that :meth:`to_json` wrote; fields of later versions are left out.

        Raises:
            TypeError, ValueError, KeyError: it is none.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in _ESTIMATES:
            if known.get(name) is not None:
                value, low, high, n = known[name]
                ends = (-math.inf if low is None else low, math.inf if high is None else high)
                known[name] = Estimate(math.nan if value is None else value, *ends, n)
        known["notes"] = tuple(known.get("notes", ()))
        return cls(**known)

    def scalars(self) -> dict[str, float]:
        """The finite numbers in it by name, for loggers."""
        found: dict[str, Any] = {f"terms/{name}": value for name, value in (self.terms or {}).items()}
        for field in fields(self):
            value = getattr(self, field.name)
            found[field.name] = value.value if isinstance(value, Estimate) else value
        del found["step"]
        found["critical_batch_size"] = self.critical_batch_size
        numbers = {n: v for n, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def batch_of_balance(noise_curvature: float, gradient_curvature: float) -> float:
    """tr(HΣ)/gᵀHg; inf where the denominator is not positive, 0 where the numerator is not."""
    return max(noise_curvature, 0.0) / gradient_curvature if gradient_curvature > 0 else math.inf


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return [_plain(value.value), _plain(value.low), _plain(value.high), value.n]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
