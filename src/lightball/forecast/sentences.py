"""Advice in words: what to do, and what would give another answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightball.stats import Verdict

if TYPE_CHECKING:
    from lightball.forecast.advice import ValueOfMomentum
    from lightball.forecast.best_tuned import BestTuned
    from lightball.forecast.critical import CriticalBatchSize
    from lightball.forecast.regime import Regime
    from lightball.rules import Setting


def recommendation(
    best: BestTuned, value: ValueOfMomentum, critical: CriticalBatchSize, setting: Setting, batch_size: int
) -> str:
    """What to do, in one sentence; tuned runs decide, and where they do not, the user's own setting does."""
    rate = f"SGD at lr {setting.effective_lr:.4g}"
    if best.verdict is Verdict.NO_VALUE and best.sgd_lr is not None:
        if setting.effective_lr <= best.sgd_lr or value.verdict is Verdict.NO_VALUE:
            return f"Drop momentum: {rate} does the same."
        return (
            f"Drop momentum, but not at this rate: SGD at its own best rate, about {best.sgd_lr:.2g}, loses nothing "
            f"over {best.epochs} epochs."
        )
    if best.verdict is Verdict.HELPS and best.sgd_lr is not None:
        if setting.effective_lr > best.sgd_lr:
            return f"Keep momentum: it stands your effective rate, and SGD does not (up to about {best.sgd_lr:.2g})."
        return (
            f"Momentum helps at batch size {batch_size} because it stands larger rates than yours: raise it, or drop "
            "momentum and lose little."
            if value.verdict is Verdict.NO_VALUE
            else f"Keep momentum: at batch size {batch_size} it stands rates that SGD does not."
        )
    if best.verdict is Verdict.HURTS:
        return f"Drop momentum: tuned, SGD ends lower at batch size {batch_size}."
    words = {
        Verdict.NO_VALUE: f"At this rate momentum has no value over {value.num_steps} steps: {rate} does the same.",
        Verdict.HELPS: f"Keep momentum at this rate: over {value.num_steps} steps SGD would lose by dropping it.",
        Verdict.HURTS: f"Drop momentum at this rate: over {value.num_steps} steps {rate} gets further.",
        Verdict.UNDECIDED: "Undecided: compare the two on your task (lightball compare, or --verify).",
    }
    between = ""
    ends = (critical.low, critical.high)
    if value.verdict is Verdict.UNDECIDED and best.valid and ends[0] is not None and ends[1] is not None:
        between = f" Tuned, momentum pays from a batch of {ends[0]:.0f} to {ends[1]:.0f} on; yours is {batch_size}."
    return words[value.verdict] + between


def what_would_change(
    regime: Regime,
    value: ValueOfMomentum,
    best: BestTuned,
    critical: CriticalBatchSize,
    setting: Setting,
    batch_size: int,
) -> tuple[str, ...]:
    """What would give another answer, most important first."""
    found = []
    if critical.value is not None:
        if batch_size < critical.value:
            found.append(f"A batch size above about {critical.value:.0f}: from there on tuned momentum pays.")
        else:
            found.append(f"A batch size below about {critical.value:.0f}: down there SGD keeps up when both are tuned.")
    if best.valid and best.verdict is not Verdict.NO_VALUE:
        found.append("More epochs: a longer run needs no large rate, and the gap between tuned runs shrinks.")
    if setting.effective_lr < regime.curvature_lr:
        found.append(
            f"A rate above {regime.curvature_lr:.2g} (2/λ_max): there SGD is no longer stable and momentum is."
        )
    else:
        found.append(f"A rate below {regime.curvature_lr:.2g} (2/λ_max): there SGD is stable too.")
    if regime.name == "not determined" and regime.more_batches is not None:
        found.append(f"More data for the probe: {regime.more_batches} more batches would tell noise from curvature.")
    if not value.valid:
        found.append(f"A setting at which the forecast is valid; here it is not: {value.reason}.")
    if not best.valid:
        found.append(f"A valid prediction of tuned runs; there is none: {best.reason}.")
    return tuple(found)
