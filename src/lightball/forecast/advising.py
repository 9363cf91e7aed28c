"""From phases and a setting to advice."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightball.errors import InputError
from lightball.forecast.advice import Advice, PhaseAdvice, ValueOfMomentum
from lightball.forecast.best_tuned import MARGIN, best_tuned
from lightball.forecast.critical import critical_batch_size
from lightball.forecast.forecast import forecast
from lightball.forecast.phase import Phase, Phases, as_phases
from lightball.forecast.regime import regime_of, terms_of
from lightball.forecast.sentences import recommendation, what_would_change
from lightball.oracles import SamplingKind
from lightball.probe import Probe
from lightball.rules import Setting, convert
from lightball.stats import Interval, Verdict, verdict_of

_FLOAT32 = 4


def advise(
    phases: Phases | Sequence[Phase] | Probe,
    setting: Setting,
    batch_size: int,
    *,
    num_steps: int = 100,
    epochs: int = 24,
    sampling: SamplingKind = "shuffle",
    margin: float | None = None,
    warm: bool | None = None,
) -> Advice:
    """What limits the run at its setting, what momentum is worth there and at best, and how to do without it.

    Args:
        phases: from :func:`phases_of`, or probes of one's own; a single probe has no curve, and no best-tuned gap.
        setting: the optimizer in the user's convention; its momentum is what is judged.
        batch_size: B.
        num_steps: over which the forecast at the user's setting goes.
        epochs: of the whole run, for the best-tuned gap and the critical batch size.
        sampling: of minibatches.
        margin: the difference in training loss that does not matter; default 1 % of the decrease in loss over the
            curve, or of the loss itself without one.
        warm: whether SGDM goes on with the momentum of the probed run, see :func:`forecast`; default where a probe
            was given it.

    Cost: forecasts of ``num_steps`` steps at each phase, a second in all.

    Raises:
        InputError: no phases, a setting without momentum or with Nesterov's, a batch beyond the training set, fewer
            than one step, or a margin that is not above 0.
    """
    known = as_phases(phases)
    if not known.phases:
        raise InputError("there are no phases to judge by: give at least one probe")
    if setting.momentum == 0:
        raise InputError("the setting has momentum 0, so there is none to judge: give the momentum that you consider")
    if setting.nesterov:
        raise InputError("the setting has nesterov True, but forecasts are for the heavy ball: give nesterov False")
    rate, momentum = setting.effective_lr, setting.momentum
    threshold = margin if margin is not None else _margin(known)
    by_phase = tuple(
        PhaseAdvice(
            phase,
            regime_of(phase.probe, rate, batch_size),
            terms_of(phase.probe, rate, batch_size),
            _value(phase.probe, rate, momentum, batch_size, num_steps, sampling, threshold, warm),
        )
        for phase in known.phases
    )
    main = known.phases.index(known.main)
    best = best_tuned(known, momentum, batch_size, epochs=epochs, margin=margin)
    critical = critical_batch_size(known, momentum, epochs=epochs, margin=margin)
    matched = convert(setting, "sgd")
    parameters = known.main.probe.num_parameters
    return Advice(
        setting,
        batch_size,
        sampling,
        by_phase,
        main,
        best,
        critical,
        matched.effective_lr,
        matched.schedule_rule,
        parameters * _FLOAT32 if known.parameter_bytes is None else known.parameter_bytes,
        recommendation(by_phase[main].regime, best, by_phase[main].value, critical, setting, batch_size),
        what_would_change(by_phase[main].regime, by_phase[main].value, best, critical, setting, batch_size),
        by_phase[main].regime.more_batches,
        known.main.probe.buffer is not None if warm is None else warm,
    )


def _margin(phases: Phases) -> float:
    losses = [point.loss for point in phases.curve]
    fall = losses[0] - min(losses) if len(losses) > 1 and phases.from_start else phases.main.probe.loss
    return max(MARGIN * fall, 1e-12)


def _value(
    probe: Probe,
    rate: float,
    momentum: float,
    batch_size: int,
    num_steps: int,
    sampling: SamplingKind,
    margin: float,
    warm: bool | None,
) -> ValueOfMomentum:
    found = forecast(probe, rate, momentum, batch_size=batch_size, num_steps=num_steps, sampling=sampling, warm=warm)
    value, validity = found.value, found.validity
    verdict = Verdict.UNDECIDED
    if validity.valid and math.isfinite(value.low) and math.isfinite(value.high):
        verdict = verdict_of(Interval(value.value, value.low, value.high, 0.95, max(value.n, 1)), margin)
    bound = validity.bound + (value.high - value.low) / 2  # of the model, and of what was measured
    if not validity.valid and bound <= margin:  # whichever effect prevails, neither matters
        return ValueOfMomentum(Verdict.NO_VALUE, value.value, -bound, bound, margin, num_steps, True, validity.reason)
    # Beyond stability the recursion gives numbers without meaning.
    told = validity.valid or abs(value.value) < probe.loss
    numbers = (value.value, value.low, value.high) if told else (math.nan, -math.inf, math.inf)
    return ValueOfMomentum(verdict, *numbers, margin, num_steps, validity.valid, validity.reason)
