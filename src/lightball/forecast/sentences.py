"""Advice in words: what to do, and what would give another answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightball.stats import Verdict

if TYPE_CHECKING:
    from lightball.forecast.advice import ValueOfMomentum
    from lightball.forecast.best_tuned import BestTuned
    from lightball.forecast.critical import CriticalBatchSize
    from lightball.forecast.regime import Regime
    from lightball.rules import Setting


def unstable_beyond(regime: Regime, best: BestTuned, effective_lr: float) -> float | None:
    """2/λ_max where SGD does not stand the rate: it is beyond, and beyond what tuned SGD takes. Otherwise None."""
    tuned = best.sgd_lr if best.valid and best.sgd_lr is not None else 0.0
    return regime.curvature_lr if effective_lr >= max(regime.curvature_lr, tuned) else None


def recommendation(
    regime: Regime,
    best: BestTuned,
    value: ValueOfMomentum,
    critical: CriticalBatchSize,
    setting: Setting,
    batch_size: int,
) -> str:
    """What to do, in one sentence; tuned runs decide, and where they do not, the user's own setting does."""
    rate = f"SGD at lr {setting.effective_lr:.4g}"
    limit = unstable_beyond(regime, best, setting.effective_lr)
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
        own = "" if limit is None or best.sgd_lr is None else f", at its own rate, about {best.sgd_lr:.2g}"
        return f"Drop momentum: tuned, SGD ends lower at batch size {batch_size}{own}."
    words = {
        Verdict.NO_VALUE: f"At this rate momentum has no value over {value.num_steps} steps: {rate} does the same.",
        Verdict.HELPS: f"Keep momentum at this rate: over {value.num_steps} steps SGD would lose by dropping it.",
        Verdict.HURTS: f"Undecided: over {value.num_steps} steps from here {rate} gets further, since momentum starts "
        "from an empty buffer and lags; what a whole run would gain is not known.",
        Verdict.UNDECIDED: "Undecided: compare the two on your task (lightball compare, or --verify).",
    }
    between = ""
    ends = (critical.low, critical.high)
    if (
        value.verdict in (Verdict.UNDECIDED, Verdict.HURTS)
        and best.valid
        and ends[0] is not None
        and ends[1] is not None
    ):
        between = f" Tuned, momentum pays from a batch of {ends[0]:.0f} to {ends[1]:.0f} on; yours is {batch_size}."
    return words[value.verdict] + between + ("" if limit is None else _beyond(limit, setting))


def _beyond(limit: float, setting: Setting) -> str:
    """What to do at a rate that SGD does not stand."""
    beta = setting.momentum
    if setting.effective_lr >= limit * (1 + beta) / (1 - beta):
        return f" Lower the rate in any case: at {setting.effective_lr:.2g} neither is stable (SGD: up to {limit:.2g})."
    return (
        f" At this rate momentum is needed, since SGD stands at most 2/λ_max = {limit:.2g}: keep it, or lower the rate."
    )


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
    low, high = critical.low, critical.high
    if critical.value is not None:
        if low is not None and high is not None and low <= batch_size < high and best.verdict is Verdict.UNDECIDED:
            found.append(
                f"A batch size above about {high:.0f}: from there on tuned momentum pays, whatever is assumed."
            )
        elif critical.reason:
            pass  # the smallest size that can be told is no crossing
        elif batch_size < critical.value:
            found.append(f"A batch size above about {critical.value:.0f}: from there on tuned momentum pays.")
        else:
            found.append(f"A batch size below about {critical.value:.0f}: down there SGD keeps up when both are tuned.")
    if best.valid and best.verdict is not Verdict.NO_VALUE:
        found.append("More epochs: a longer run needs no large rate, and the gap between tuned runs shrinks.")
    if math.isinf(regime.curvature_lr):
        pass  # nothing is known that ends stability
    elif setting.effective_lr < regime.curvature_lr:
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
