"""What a forecast cannot know: the limits at which it says of itself that it is not valid, and why.

Every limit is a share that is read off the forecast's own parts. Their numbers were set on the digits perceptron, that
of shuffled batches on the convolutional net too; `benchmarks/forecast.py` holds them against real runs of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lightball.forecast.cases import Cases
    from lightball.forecast.outlook import Outlook
    from lightball.probe import Probe

# The loss falls by so much of itself: one quadratic no longer follows it.
_DESCENT = 0.1
# η λ_max on the way: nearer to SGD's limit of 2, weights are carried to flatter places, which no local measure knows.
_STEEPEST = 1.0
# Of the lag to first order: above, the memory is too long for the path's tangent.
_SECOND_ORDER = 0.35
# Of the loss: noise beyond it leads to other places than the path's.
_EXCESS = 0.5
# By how much noise grows, as a share of itself, where it has displaced the weights.
_GROWTH = 1.0
# Of the lag: above, noise of batches without replacement decides, of which only a quadratic's is known.
_SHUFFLED = 0.5
# Of the lag too: what the noise of independent batches does; without replacement less is left, and what that does to
# the way is not known.
_INDEPENDENT = 3.0
# What is left of lag and noise when they cancel.
_LEFT = 0.35
# Of a descent: how much of it may be run away along negative curvature.
_RUNAWAY = 0.1
# Of ‖g‖²: how much of it may be noise of the examples that were measured.
_BIAS = 0.25


@dataclass(frozen=True)
class Validity:
    """Whether a forecast stands by its number, and if not, why: a sentence.

    ``bound`` is what the size of the value does not exceed, also where two effects nearly cancel and the number is not
    to be trusted; infinite where nothing is known.
    """

    valid: bool
    reason: str
    bound: float = math.inf


def validities(probe: Probe, cases: Cases, seen: Outlook) -> list[Validity]:
    """One for each case; the first limit that is passed is named."""
    return [_validity(probe, cases, seen, case) for case in range(len(cases.batch_size))]


def _validity(probe: Probe, cases: Cases, seen: Outlook, case: int) -> Validity:
    rate = float(cases.effective_lr[case])
    steep = rate * float(seen.sharpest[case])
    lag = float(seen.mean_sgd[-1, case] - seen.mean_sgdm[-1, case])
    noise_sgd = float(seen.excess_sgd[-1, case].mean())
    noise = noise_sgd - float(seen.excess_sgdm[-1, case].mean())
    loss = float(seen.sgd[-1, case])
    bias = _bias(probe)
    reason, bounded = "", False
    if steep >= _STEEPEST:
        limit = "beyond" if steep >= 2 else "close to"
        reason = (
            f"{limit} stability: η λ_max is {steep:.2g} on the way, SGD needs it below 2, and this forecast below "
            f"{_STEEPEST:g}"
        )
    elif not np.isfinite([lag, noise, loss]).all():
        reason = "the forecast diverges: negative curvature runs away with the quadratic"
    elif seen.beyond[case]:
        reason = (
            f"{cases.num_steps} steps at η = {rate:g} lead to the flow time {cases.horizon[case]:g}, but the path was "
            f"followed to {probe.path[-1].time:g}: look further ahead"
        )
    elif not probe.path and seen.descended[case] > _DESCENT * abs(probe.loss):
        reason = (
            f"the loss falls by {seen.descended[case] / abs(probe.loss):.0%} of itself, further than one quadratic can "
            "be trusted: follow the path ahead (lightball.probe.look_ahead)"
        )
    elif not probe.path and _runaway(probe, float(cases.horizon[case])) > _RUNAWAY * abs(seen.descended[case]):
        reason = "negative curvature runs away with the quadratic: follow the path ahead (lightball.probe.look_ahead)"
    elif seen.second_order[case] > _SECOND_ORDER * abs(lag) and seen.second_order[case] > 0.1 * abs(lag + noise):
        reason = (
            f"momentum's memory of {cases.memory[case]:.2g} in flow time is too long for the path's tangent: its "
            f"second order is {seen.second_order[case] / max(abs(lag), 1e-300):.0%} of the first"
        )
    elif noise_sgd > _EXCESS * abs(loss - noise_sgd):
        reason = (
            f"noise raises the loss by {noise_sgd / abs(loss - noise_sgd):.0%}, further than its measure at the path "
            "can be trusted"
        )
    elif float(seen.growth[case]) * noise_sgd > _GROWTH:
        grown = float(seen.growth[case]) * noise_sgd
        reason = f"noise grows with itself: weights that it has displaced have {grown:.0%} more of it"
    elif cases.shuffled is not None and abs(noise) > _SHUFFLED * abs(lag):
        reason = (
            f"batches without replacement: the value is {lag:+.2g} by the lag and {noise:+.2g} by less noise, which is "
            "known of a quadratic only"
        )
        bounded = True
    elif cases.shuffled is not None and seen.independent[case] > _INDEPENDENT * abs(lag):
        reason = (
            f"batches without replacement: if they were independent, noise would raise the loss by "
            f"{seen.independent[case]:.2g}, far more than the lag of {lag:+.2g}; how little of it is left is known of "
            "a quadratic only"
        )
        bounded = True
    elif bias > _BIAS:
        reason = (
            f"of the gradient's squared norm, {bias:.0%} is noise of the {probe.gradient_examples} examples it was "
            "measured on: measure more"
        )
    elif abs(lag + noise) < _LEFT * max(abs(lag), abs(noise)):
        reason = f"two effects nearly cancel: {lag:+.2g} by the lag and {noise:+.2g} by less noise"
        bounded = True
    known = not reason or bounded
    return Validity(not reason, reason, abs(lag) + abs(noise) if known else math.inf)


def _runaway(probe: Probe, time: float) -> float:
    """How much further negative curvature carries the descent than a flat direction would."""

    def beyond(h: np.ndarray) -> np.ndarray:
        safe = np.where(h < 0, h, -1.0)
        with np.errstate(over="ignore"):
            return np.where(h < 0, np.expm1(-2 * safe * time) / (-2 * safe) - time, 0.0)

    return probe.gradient.integral(beyond)


def _bias(probe: Probe) -> float:
    raw = probe.gradient.mass
    return probe.gradient_noise_share * probe.trace_noise.value / raw if raw > 0 else 0.0
