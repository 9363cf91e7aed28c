"""From the outcomes at one batch size to verdicts and descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightball.stats import decide, mean_and_standard_error, paired_t_interval
from lightball.studies.result import JUDGED, Arm, BatchResult, EqualRates, Judged, Pairing, Speed
from lightball.studies.runs import Outcome, Run, seeds
from lightball.studies.settings import Settings
from lightball.studies.tuning import Choice

Vector = NDArray[np.float64]


def judge(
    settings: Settings,
    batch_size: int,
    num_pairs: int,
    grid: Sequence[float],
    choices: Mapping[float, Choice],
    margins: Mapping[str, float] | None,
    outcomes: Mapping[Run, Outcome],
) -> BatchResult:
    """Everything that can be said at one batch size from the outcomes at hand, ``num_pairs`` pairs at most."""

    def confirmed(momentum: float, rate: float | None) -> dict[int, Outcome]:
        """By seed; a rule that was decided early has fewer."""
        runs = [Run(batch_size, rate, seed, momentum) for seed in seeds("confirm", num_pairs)] if rate else []
        return {run.seed: outcomes[run] for run in runs if run in outcomes}

    sgd = confirmed(0.0, choices[0.0].effective_lr)
    pairings = []
    for momentum in settings.momentum:
        sgdm = confirmed(momentum, choices[momentum].effective_lr)
        paired = [sgd[seed] for seed in sgdm] if sgd else []
        arm = _arm(momentum, choices[momentum], [*sgdm.values()])
        pairings.append(_pairing(settings, arm, paired, [*sgdm.values()], margins))
    equal = [
        _equal_rates(
            rate,
            momentum,
            *([arm[seed] for seed in first] for arm in (confirmed(0.0, rate), confirmed(momentum, rate))),
        )
        for first in [seeds("confirm", settings.stages[0])]
        for momentum in settings.momentum
        for rate in grid
    ]
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


def _pairing(
    settings: Settings,
    arm: Arm,
    sgd: Sequence[Outcome],
    sgdm: Sequence[Outcome],
    margins: Mapping[str, float] | None,
) -> Pairing:
    if not sgd or not sgdm or margins is None:
        return Pairing(arm, {}, None, None)
    decisions = {
        name: decide(differences(sgd, sgdm, name), margins[name], settings.family_size, settings.decision_stages)
        for name in JUDGED
    }
    with np.errstate(divide="ignore", invalid="ignore"):  # no ratio where a loss is not above 0
        logs = [np.log([o.score("train_loss") for o in runs]) for runs in (sgd, sgdm)]
        ratio = float(np.exp(np.mean(logs[0] - logs[1])))
    curves = [_mean_curve(runs) for runs in (sgd, sgdm)]
    level = max(curve[-1] for curve in curves)
    return Pairing(arm, decisions, ratio, Speed(float(level), *(epochs_to(curve, level) for curve in curves)))


def _arm(momentum: float, choice: Choice, runs: Sequence[Outcome]) -> Arm:
    def mean(measure: Judged) -> tuple[float | None, float | None]:
        scores = [o.score(measure) for o in runs]
        return mean_and_standard_error(scores) if scores else (None, None)

    loss, accuracy = mean("train_loss"), mean("test_accuracy")
    return Arm(
        momentum,
        choice.effective_lr,
        choice.at_edge,
        *loss,
        *accuracy,
        len(runs),
        sum(o.failed for o in runs),
        tuple(_mean_curve(runs).tolist()) if runs else (),
        choice.scores,
    )


def _mean_curve(runs: Sequence[Outcome]) -> Vector:
    """The mean training loss by epoch; where a run's loss is not finite it counts as its untrained loss,
    and it ends at its score."""
    curves = np.array([[*o.curve[:-1], o.score("train_loss")] for o in runs])
    untrained = np.array([[o.untrained["train_loss"]] for o in runs])
    return np.asarray(np.where(np.isfinite(curves), curves, untrained).mean(axis=0))


def _equal_rates(rate: float, momentum: float, sgd: Sequence[Outcome], sgdm: Sequence[Outcome]) -> EqualRates:
    intervals = {name: paired_t_interval(differences(sgd, sgdm, name), 0.95) for name in JUDGED}
    return EqualRates(rate, momentum, sum(o.failed for o in sgd), sum(o.failed for o in sgdm), intervals)
