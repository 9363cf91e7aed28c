"""Both rules over a whole run, each at its best rate: what momentum would be worth then.

A run of K steps at effective rate η goes the flow time T = ηK, and its loss is that of the path there, L(T), whatever
the rule and the batch size: so the rule that stands the larger rate gets further. What limits η:

- Curvature: SGD is stable at h below η = 2/h, SGDM below (1 + β)/(1 − β) times that. The limit is soft: a network that
  is pushed over it moves to flatter places and trains on, though not as fast as its rate says. How soft differs between
  networks (a perceptron gains a factor of 2, one with normalisation of 4), so it is tried: short runs of SGD at rates
  from 2/h on, for the largest h on the way, tell how far along the path they come, and the best two neighbours of them
  give the rate that counts. Without trials the limit is taken at √8/h, between 2/h and 4/h, where a two-layer linear
  model ends (arXiv:2003.02218). SGDM is taken at √8/h times (1 + β)/(1 − β), or where SGD is, if that is further.
- Noise: to first order both rules sit η tr Σ/(4B) above the path (arXiv:2307.15196, §3), and noise grows with the loss
  that it causes. In proportion, q = η tr Σ/(4BL) of the loss is noise's, and at q = 1 it feeds itself. This limit, 4BL/
  tr Σ, is the same for both. Below it noise costs nothing here: where noise and gradient fall with the loss together,
  what noise adds to the loss it also adds to the speed of its fall.
- The memory: SGDM starts from m₀ = 0 and goes T = η(K − β(1 − βᴷ)/(1 − β)).

- What is left of the loss: in the noise's limit and beyond the curve, L is what is left above where the loss ends, its
  floor. That is not known. It is taken to be 0, as fits losses that a model can bring to 0, and tried at the highest
  that seems possible, where as much is left as the last doubling of the flow time gained. The range of the answer holds
  both, so one that hangs on the floor is undecided.

This was developed on the two nets on digits, and there it agrees with `lightball compare`; on other tasks it has not
been held against anything. What is left out: noise that stays while the loss falls, paths that noise makes
flatter, rates that change in a run, and all differences between the rules at the same rate, on which `forecast` speaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lightball.errors import InputError
from lightball.forecast.path_loss import PathLoss
from lightball.forecast.phase import CurvePoint, Phases, Trial
from lightball.forecast.regime import STABLE
from lightball.forecast.transfer import memory_of
from lightball.forecast.trials import RATIO
from lightball.stats import Interval, Verdict, verdict_of

if TYPE_CHECKING:
    from jaxtyping import Float64

_SOFT = math.sqrt(8.0)  # η λ_max at which a rule stops training, between 2 and 4
_SPREAD = math.sqrt(RATIO)  # how far SGD's limit may be off: half way to the next rate that was tried
_UNTRIED = math.sqrt(2.0)  # the same where nothing was tried: the ends of 2/h to 4/h
_TAILS = (0.5, 1.0, 2.0)  # times the slope of the curve's last stretch, beyond it
MARGIN = 0.01  # of the decrease in loss, as in `compare`
_FAR = 4.0  # times the recorded flow time: further on the curve is a guess
_NOISES = (0.5, 1.0, 2.0)  # times the noise that was measured
_RATES = np.geomspace(1e-4, 1.0, 321)  # shares of the limit by curvature


@dataclass(frozen=True)
class BestTuned:
    """The predicted final losses of SGD and SGDM at their best rates, at one batch size and a number of epochs.

    ``difference`` is SGD's minus SGDM's, positive favours momentum. It ranges from ``low`` to ``high`` over what is not
    known: SGD's soft limit, noise, the curve beyond its end, and where the loss ends; that is no confidence interval.
    The losses and ``difference`` assume that the loss can fall to 0; the range also holds what comes out where as
    little is left of it as the last doubling of the flow time gained. Numbers are None where nothing can be said.
    ``reason`` is a sentence where ``valid`` is False.
    """

    verdict: Verdict
    difference: float | None
    low: float | None
    high: float | None
    margin: float | None
    sgd_loss: float | None
    sgdm_loss: float | None
    sgd_lr: float | None
    sgdm_lr: float | None
    epochs: int
    num_steps: int
    valid: bool
    reason: str


@dataclass(frozen=True)
class _Tuned:
    """A rule at its best rate."""

    lr: float
    loss: float
    time: float


class Run:
    """What phases and curve say of runs at any batch size, if the loss ends at ``floor``."""

    def __init__(self, phases: Phases, momentum: float, floor: float = 0.0) -> None:
        probes = [phase.probe for phase in phases.phases]
        curve = _curve_of(phases)
        self.momentum = momentum
        self.floor = floor
        self.examples = probes[0].training_examples
        above = [replace(point, loss=point.loss - floor) for point in curve]
        self.curves = {tail: PathLoss(above, tail) for tail in _TAILS}
        self.start = self.curves[1.0].start + floor
        self.horizon = self.curves[1.0].horizon
        self._trials = phases.trials
        self.sharpest = max([p.sharpness.value for p in probes] + [c.sharpness or 0.0 for c in curve])
        times = [max(phase.time, 1e-12) for phase in phases.phases]
        # A probe sees a part of the examples, on which the loss may be below the lowest of the curve.
        lowest = self.curves[1.0].lowest
        ratios = [max(p.trace_noise.value, 1e-300) / max(p.loss - floor, lowest) for p in probes]
        self._noise = (np.log(times), np.log(ratios))

    @property
    def highest_floor(self) -> float:
        """Where the loss ends if only as much is left of it as the last doubling of the flow time gained.

        At least the default margin is left, since less makes no difference.
        """
        curve = self.curves[1.0]
        left = max(float(curve(curve.horizon / 2)) - curve.lowest, MARGIN * (curve.start - curve.lowest))
        return max(0.0, self.floor + curve.lowest - left) if left > 0 else self.floor

    def limit(self, momentum: float) -> float:
        """The largest rate that counts, as far as curvature is concerned: see the top of the module."""
        along = [trial.effective_lr * self._speed(trial) for trial in self._trials]
        sgd = STABLE / self.sharpest if along else _SOFT / self.sharpest
        for one, other in pairwise(along):  # a single lucky run is not believed
            sgd = max(sgd, (one + other) / 2)
        return max(sgd, _SOFT / self.sharpest * (1 + momentum) / (1 - momentum)) if momentum else sgd

    @property
    def spread(self) -> float:
        """By what factor SGD's limit may be off."""
        return _SPREAD if self._trials else _UNTRIED

    def _speed(self, trial: Trial) -> float:
        """The flow time that a trial came along the path, as a share of what its rate says."""
        if not math.isfinite(trial.loss):
            return 0.0
        if trial.loss <= self.floor:
            return 1.0
        return min(1.0, self.curves[1.0].time_of(trial.loss - self.floor) / (trial.effective_lr * trial.num_steps))

    def tuned(
        self, momentum: float, batch_size: int, num_steps: int, spread: float, tail: float, noise: float
    ) -> _Tuned:
        """The best rate of a rule, the largest that it stands, and its loss there."""
        rates = self.limit(momentum) * (spread if momentum == 0 else 1.0) * _RATES
        times = rates * (num_steps - memory_of(momentum, num_steps))
        stands = noise * rates * self.noise_ratio(times) <= 4 * batch_size
        best = int(np.flatnonzero(stands)[-1]) if stands.any() else 0
        loss = float(self.curves[tail](times[best])) + self.floor
        return _Tuned(float(rates[best]), loss, float(times[best]))

    def noise_ratio(self, times: Float64[np.ndarray, "time"]) -> Float64[np.ndarray, "time"]:
        """tr Σ/L, L above the floor, between the phases on logarithmic scales, and as at the nearest outside."""
        result: np.ndarray = np.exp(np.interp(np.log(np.maximum(times, 1e-300)), *self._noise))
        return result


def best_tuned(
    phases: Phases, momentum: float, batch_size: int, *, epochs: int, margin: float | None = None
) -> BestTuned:
    """SGD and SGDM over ``epochs`` at one batch size, each at its best constant rate; see the top of the module.

    Args:
        phases: of a run of the task, with its curve.
        momentum: β of SGDM.
        margin: the difference that does not matter; default 1 % of the decrease of the loss.

    Raises:
        InputError: a batch beyond the training set, fewer than one epoch, or a margin that is not above 0.
    """
    examples = phases.phases[0].probe.training_examples
    if not 1 <= batch_size <= examples:
        raise InputError(
            f"batch size {batch_size} does not fit the {examples} training examples: choose one up to that"
        )
    if epochs < 1:
        raise InputError(f"epochs is {epochs}, but must be a whole number from 1 up")
    if margin is not None and not 0 < margin < math.inf:
        raise InputError(
            f"the margin is {margin}; a finite number above 0 is required: choose the smallest difference that would "
            "matter to you"
        )
    num_steps = epochs * (examples // batch_size)
    lowest = min(point.loss for point in _curve_of(phases))
    if lowest <= 0:
        said = f"the loss is not positive, {lowest:.3g} at its lowest, so it is not known what is left of it"
        return _nothing(epochs, num_steps, said)
    try:
        run = Run(phases, momentum)
    except ValueError:
        return _nothing(epochs, num_steps, "there is no loss curve of the run, only weights at one time: probe phases")
    if run.sharpest <= 0:
        return _nothing(epochs, num_steps, "no curvature was found that limits a rate")

    def pair(run: Run, spread: float = 1.0, tail: float = 1.0, noise: float = 1.0) -> tuple[_Tuned, _Tuned]:
        sgd = run.tuned(0.0, batch_size, num_steps, spread, tail, noise)
        return sgd, run.tuned(momentum, batch_size, num_steps, spread, tail, noise)

    def gap(run: Run = run, **changed: float) -> float:
        sgd, sgdm = pair(run, **changed)
        return sgd.loss - sgdm.loss

    sgd, sgdm = pair(run)
    difference = sgd.loss - sgdm.loss
    others = [
        [gap(spread=run.spread**e) for e in (-1, 0, 1)],
        [gap(tail=t) for t in _TAILS],
        [gap(noise=n) for n in _NOISES],
        [gap(), gap(Run(phases, momentum, run.highest_floor))],
    ]
    low = difference - math.hypot(*(difference - min(values) for values in others))
    high = difference + math.hypot(*(max(values) - difference for values in others))
    if margin is None:
        margin = MARGIN * (run.start - min(sgd.loss, sgdm.loss))
    reason = _limits(run, num_steps, sgd, sgdm, margin)
    verdict = Verdict.UNDECIDED
    if margin > 0 and not reason:
        verdict = verdict_of(Interval(difference, low, high, 0.95, 1), margin)
    numbers = (difference, low, high, margin, sgd.loss, sgdm.loss, sgd.lr, sgdm.lr)
    return BestTuned(verdict, *numbers, epochs, num_steps, not reason, reason)


def _limits(run: Run, num_steps: int, sgd: _Tuned, sgdm: _Tuned, margin: float) -> str:
    """Why the prediction is not valid, or nothing."""
    if margin <= 0:
        return "the loss did not fall in the run that was probed, so there is nothing to gain"
    memory = 1 / (1 - run.momentum)
    if num_steps < 2 * memory:
        return f"the run has {num_steps} steps, no more than twice the memory of momentum, {memory:.3g} steps"
    if sgd.time > _FAR * run.horizon and sgd.loss > margin:
        return (
            f"SGD's best run would go the flow time {sgd.time:.3g}, but the curve ends at {run.horizon:.3g}: probe "
            "phases of a longer training"
        )
    return ""


def _curve_of(phases: Phases) -> tuple[CurvePoint, ...]:
    return phases.curve or tuple(CurvePoint(phase.time, phase.probe.loss) for phase in phases.phases)


def _nothing(epochs: int, num_steps: int, reason: str) -> BestTuned:
    return BestTuned(Verdict.UNDECIDED, *(None,) * 8, epochs, num_steps, False, reason)
