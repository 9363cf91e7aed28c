"""From the outcomes at one batch size to verdicts and descriptions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightball.stats import decide, mean_and_standard_error, paired_t_interval
from lightball.studies.result import JUDGED, Arm, BatchResult, EqualRates, Judged, Pairing, Speed
from lightball.studies.runs import Outcome, Run
from lightball.studies.settings import Settings
from lightball.studies.tuning import Choice

Vector = NDArray[np.float64]


def judge(
    settings: Settings,
    batch_size: int,
    seeds: Sequence[int],
    grid: Sequence[float],
    choices: Mapping[float, Choice],
    margins: Mapping[Judged, float] | None,
    outcomes: Mapping[Run, Outcome],
) -> BatchResult:
    """Everything that can be said at one batch size from the outcomes at hand, a pair for each seed at most."""

    def confirmed(momentum: float, rate: float | None) -> dict[int, Outcome]:
        """By seed; a rule that was decided early has fewer."""
        runs = [Run(batch_size, rate, seed, momentum) for seed in seeds] if rate else []
        return {run.seed: outcomes[run] for run in runs if run in outcomes}

    sgd = confirmed(0.0, choices[0.0].effective_lr)
    pairings = []
    for momentum in settings.momentum:
        sgdm = confirmed(momentum, choices[momentum].effective_lr)
        paired = [sgd[seed] for seed in sgdm] if sgd else []
        arm = _arm(momentum, choices[momentum], [*sgdm.values()])
        pairings.append(_pairing(settings, arm, paired, [*sgdm.values()], margins))
    first = seeds[: settings.stages[0]]
    equal = []
    for momentum in settings.momentum:
        for rate in grid:
            arms = [confirmed(0.0, rate), confirmed(momentum, rate)]
            if all(seed in arm for arm in arms for seed in first):
                equal.append(_equal_rates(rate, momentum, *([arm[seed] for seed in first] for arm in arms)))
    return BatchResult(
        batch_size,
        {name: margins[name] for name in JUDGED} if margins else None,
        _arm(0.0, choices[0.0], [*sgd.values()]),
        tuple(pairings),
        tuple(equal),
    )


def differences(sgd: Sequence[Outcome], sgdm: Sequence[Outcome], measure: Judged) -> Vector:
    """Scores of pairs in their planned order, signed so that positive favours momentum."""
    plain, heavy = (np.array([o.score(measure) for o in runs]) for runs in (sgd, sgdm))
    return np.asarray(plain - heavy if measure == "train_loss" else heavy - plain)


def epochs_to(curve: Sequence[float] | Vector, level: float) -> float:
    """Epochs until a curve (one value before training, then one an epoch) first reaches ``level``, interpolated."""
    values = np.asarray(curve)
    reached = np.flatnonzero(values <= level)
    if not reached.size:
        return float("inf")
    k = int(reached[0])
    if k == 0:
        return 0.0
    return float(k - 1 + (values[k - 1] - level) / (values[k - 1] - values[k]))


def score_curves(runs: Sequence[Outcome]) -> NDArray[np.float64]:
    """Float[run, epoch]: training losses before training and after each epoch; a loss that is not finite counts as the
    untrained one, and each curve ends at the score. Empty where runs report no curve, or curves of several lengths."""
    lengths = {len(o.curve) for o in runs if not o.error}
    if len(lengths) != 1 or lengths == {0}:
        return np.empty((0, 0))
    missing = [math.nan] * (lengths.pop() - 1)
    curves = np.array([[*(missing if o.error else o.curve[:-1]), o.score("train_loss")] for o in runs])
    untrained = np.array([[o.untrained["train_loss"]] for o in runs])
    return np.asarray(np.where(np.isfinite(curves), curves, untrained))


def _mean_curve(runs: Sequence[Outcome]) -> Vector:
    curves = score_curves(runs)
    return np.asarray(curves.mean(axis=0)) if curves.size else np.empty(0)


def _pairing(
    settings: Settings,
    arm: Arm,
    sgd: Sequence[Outcome],
    sgdm: Sequence[Outcome],
    margins: Mapping[Judged, float] | None,
) -> Pairing:
    if not sgd or not sgdm or margins is None:
        return Pairing(arm, {}, None, None)
    decisions = {
        name: decide(values, margins[name], settings.family_size, settings.decision_stages)
        for name, values in _all_differences(sgd, sgdm).items()
    }
    with np.errstate(divide="ignore", invalid="ignore"):  # no ratio where a loss is not above 0
        logs = [np.log([o.score("train_loss") for o in runs]) for runs in (sgd, sgdm)]
        ratio = float(np.exp(np.mean(logs[0] - logs[1])))
    speed = None if settings.num_steps else _speed(sgd, sgdm)  # the last value of a curve may be within an epoch
    return Pairing(arm, decisions, ratio, speed)


def _speed(sgd: Sequence[Outcome], sgdm: Sequence[Outcome]) -> Speed | None:
    curves = [_mean_curve(runs) for runs in (sgd, sgdm)]
    if not all(len(curve) for curve in curves):
        return None
    level = max(curve[-1] for curve in curves)
    return Speed(float(level), *(epochs_to(curve, level) for curve in curves))


def _all_differences(sgd: Sequence[Outcome], sgdm: Sequence[Outcome]) -> dict[Judged, Vector]:
    """By measure; one that a script does not report has none."""
    found = {name: differences(sgd, sgdm, name) for name in JUDGED}
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _arm(momentum: float, choice: Choice, runs: Sequence[Outcome]) -> Arm:
    def mean(measure: Judged) -> tuple[float | None, float | None]:
        scores = [o.score(measure) for o in runs]
        return mean_and_standard_error(scores) if scores and np.isfinite(scores).all() else (None, None)

    loss, accuracy = mean("train_loss"), mean("test_accuracy")
    errors = [o.error for o in runs if o.error]
    return Arm(
        momentum,
        choice.effective_lr,
        choice.at_edge,
        *loss,
        *accuracy,
        len(runs),
        sum(o.failed for o in runs),
        tuple(_mean_curve(runs).tolist()),
        choice.scores,
        len(errors),
        errors[-1] if errors else None,
        choice.without_crashes if choice.without_crashes != choice.effective_lr else None,
    )


def _equal_rates(rate: float, momentum: float, sgd: Sequence[Outcome], sgdm: Sequence[Outcome]) -> EqualRates:
    intervals = {name: paired_t_interval(values, 0.95) for name, values in _all_differences(sgd, sgdm).items()}
    return EqualRates(rate, momentum, sum(o.failed for o in sgd), sum(o.failed for o in sgdm), intervals)
