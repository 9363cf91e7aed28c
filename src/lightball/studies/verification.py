"""A forecast beside what is measured: pairs of runs at the advised point, and a comparison of tuned ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightball.errors import InputError
from lightball.forecast.advice import Advice, ValueOfMomentum
from lightball.forecast.advice_json import finite
from lightball.forecast.best_tuned import BestTuned
from lightball.forecast.loading import load_checkpoint
from lightball.forecast.measured import MeasuredValue, measured_value
from lightball.oracles import build, check_vectorisable
from lightball.stats import Decision, Interval, Verdict, verdict_of
from lightball.stats.intervals import t_multiplier
from lightball.studies.api import compare
from lightball.studies.ledger import Observer
from lightball.studies.plan import Plan
from lightball.studies.settings import Settings
from lightball.workloads import Workload

CLOSE = 0.25
"""Forecast and measurement also agree if they differ by less than this share of the measurement."""


@dataclass(frozen=True)
class EqualRatesCheck:
    """The value of momentum at the user's setting: forecast, and measured from the same weights on paired runs."""

    forecast: ValueOfMomentum
    measured: Interval | None
    measured_verdict: Verdict
    failed_sgd: int
    failed_sgdm: int
    agrees: bool | None
    sentence: str


@dataclass(frozen=True)
class TunedCheck:
    """The best-tuned gap: predicted, and decided by ``compare``."""

    predicted: BestTuned
    measured: Decision | None
    sgd_lr: float | None
    sgdm_lr: float | None
    agrees: bool | None
    sentence: str


@dataclass(frozen=True)
class Verification:
    """Advice held against runs; ``agrees`` of a check is None where one side says nothing. ``tuned`` may be missing."""

    equal_rates: EqualRatesCheck
    tuned: TunedCheck | None

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each check."""
        return (self.equal_rates.sentence, *([self.tuned.sentence] if self.tuned else []))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and text; what is not finite becomes null."""
        equal, tuned = self.equal_rates, self.tuned
        return finite(  # type: ignore[no-any-return]
            {
                "equal_rates": {
                    "forecast": asdict(equal.forecast),
                    "measured": None if equal.measured is None else asdict(equal.measured),
                    "measured_verdict": str(equal.measured_verdict),
                    "failed": {"sgd": equal.failed_sgd, "sgdm": equal.failed_sgdm},
                    "agrees": equal.agrees,
                    "sentence": equal.sentence,
                },
                "best_tuned": None
                if tuned is None
                else {
                    "predicted": asdict(tuned.predicted),
                    "measured": None if tuned.measured is None else asdict(tuned.measured),
                    "sgd_lr": tuned.sgd_lr,
                    "sgdm_lr": tuned.sgdm_lr,
                    "agrees": tuned.agrees,
                    "sentence": tuned.sentence,
                },
            }
        )


def verify(
    workload: Workload,
    advice: Advice,
    *,
    task: str | None = None,
    checkpoint: str | Path | None = None,
    tuned: bool = True,
    most_pairs: int = 256,
    settings: Settings | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    observer: Observer | None = None,
    on_plan: Callable[[str, Plan, Path], None] | None = None,
) -> Verification:
    """Measure what was forecast.

    At the user's setting, pairs of SGD and SGDM start from the weights of the phase that the advice is about, with
    m₀ = 0 and common data order, and go the forecast's number of steps; pairs are added until the standard error is
    below a quarter of the effect. ``tuned`` runs :func:`lightball.compare` at the advice's batch size and momentum,
    from initial weights.

    Args:
        advice: from phases whose weights were kept (``Effort(keep_weights=True)``), or of a ``checkpoint``.
        task: the workload's name where it has one, as ``file.py:function``, by which worker processes load it.
        checkpoint: the weights, where the advice is about a checkpoint; there is nothing to tune from initial weights.
        settings: of the comparison; batch size, momentum, epochs and sampling come from the advice.
        out, workers, observer, on_plan: of the comparison.

    Raises:
        InputError: weights that were not kept, or a model that cannot be trained many at once.
    """
    equal = _equal_rates(workload, advice, checkpoint, most_pairs, device)
    if not tuned or checkpoint is not None:
        return Verification(equal, None)
    best = advice.best_tuned
    options: dict[str, Any] = {
        "batch_sizes": (advice.batch_size,),
        "momentum": (advice.setting.momentum,),
        "epochs": best.epochs,
        "sampling": advice.sampling,
    }
    result = compare(
        workload if task is None else task,
        out=out,
        device=device,
        workers=workers,
        settings=settings,
        observer=observer,
        on_plan=on_plan,
        **options,
    )
    (batch,) = result.batches
    (pairing,) = batch.pairings
    decision = pairing.decisions.get("train_loss")
    agrees = _same_answer(best.verdict if best.valid else None, decision.verdict if decision else None)
    sentence = f"Best tuned: predicted {_words(best.verdict, best.difference, best.low, best.high)}, measured "
    if decision is None:
        sentence += "nothing, since a rule has no rate at which all runs survive"
    else:
        interval = decision.interval
        sentence += _words(decision.verdict, interval.mean, interval.low, interval.high)
    return Verification(
        equal,
        TunedCheck(
            best, decision, batch.sgd.effective_lr, pairing.arm.effective_lr, agrees, f"{sentence}{_said(agrees)}."
        ),
    )


def _equal_rates(
    workload: Workload, advice: Advice, checkpoint: str | Path | None, most_pairs: int, device: str
) -> EqualRatesCheck:
    forecast = advice.value_of_momentum
    model = _model(workload, advice, checkpoint)
    check_vectorisable(model, workload.train.inputs[:2])
    rate = advice.setting.effective_lr
    found = measured_value(
        workload,
        model,
        [rate],
        advice.setting.momentum,
        batch_size=advice.batch_size,
        num_steps=forecast.num_steps,
        sampling=advice.sampling,
        most_pairs=most_pairs,
        device="cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device,
    )[rate, forecast.num_steps]
    measured = interval_of(found)
    verdict = Verdict.UNDECIDED if measured is None else verdict_of(measured, forecast.margin)
    agrees = None if measured is None or not forecast.valid else _agree(forecast, measured)
    sentence = (
        f"At η = {rate:.3g} over {forecast.num_steps} steps: forecast "
        f"{_words(forecast.verdict, forecast.difference, forecast.low, forecast.high)}, measured "
    )
    if measured is None:
        sentence += f"nothing: {found.failed_sgd} runs of SGD and {found.failed_sgdm} of SGDM diverged"
    else:
        sentence += f"{_words(verdict, measured.mean, measured.low, measured.high)} on {found.pairs} pairs"
    if not forecast.valid:
        sentence += f" (the forecast does not stand by itself: {forecast.reason})"
    return EqualRatesCheck(
        forecast, measured, verdict, found.failed_sgd, found.failed_sgdm, agrees, f"{sentence}{_said(agrees)}."
    )


def interval_of(found: MeasuredValue) -> Interval | None:
    """The 95 % interval of a measured value; None where fewer than two pairs live, or any run failed."""
    if found.failed_sgd or found.failed_sgdm or not math.isfinite(found.mean):
        return None
    half = t_multiplier(0.95, found.pairs) * found.standard_error
    return Interval(found.mean, found.mean - half, found.mean + half, 0.95, found.pairs)


def _model(workload: Workload, advice: Advice, checkpoint: str | Path | None) -> nn.Module:
    model = build(workload.model, 0).eval()
    weights = advice.by_phase[advice.main].phase.weights
    if checkpoint is not None:
        load_checkpoint(model, Path(checkpoint))
    elif weights is not None:
        model.load_state_dict(weights)
    else:
        raise InputError(
            "the weights that were probed are not at hand: give phases_of(..., effort=Effort(keep_weights=True)), or "
            "the checkpoint"
        )
    return model


def _agree(forecast: ValueOfMomentum, measured: Interval) -> bool:
    overlap = forecast.low <= measured.high and measured.low <= forecast.high
    return overlap or abs(forecast.difference - measured.mean) <= CLOSE * abs(measured.mean)


def _same_answer(predicted: Verdict | None, measured: Verdict | None) -> bool | None:
    """None where one of them does not decide."""
    if predicted in (None, Verdict.UNDECIDED) or measured in (None, Verdict.UNDECIDED):
        return None
    return predicted == measured


def _words(verdict: Verdict, value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "nothing"
    return f"{verdict}, {value:+.2g} ({low:+.2g} to {high:+.2g})"


def _said(agrees: bool | None) -> str:
    return "" if agrees is None else ": they agree" if agrees else ": they do not agree"
