"""What the tables do not say: failures, edges, what would decide, how fast, and how it is at equal rates."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lightball.stats import Verdict
from lightball.studies.result import JUDGED, Arm, BatchResult, Pairing, Result


def notes(result: Result) -> list[str]:
    """One line for each fact, by batch size."""
    by_loss = result.settings.select == "train_loss"
    return [f"batch {batch.batch_size}{note}" for batch in result.batches for note in _of_batch(batch, by_loss)]


def _of_batch(batch: BatchResult, by_loss: bool) -> Iterator[str]:
    if batch.lost_seeds:
        seeds = f"{batch.lost_seeds} seed{'s' if batch.lost_seeds > 1 else ''}"
        replaced = "; other seeds took their place" if batch.margins else ""
        yield f": on {seeds} every run crashed, the last with: {_reason(batch.last_error)}{replaced}"
    if batch.margins is None:
        yield ": no rate trained; try others with --lr"
        return
    if batch.margins_changed:
        yield ": other margins were fixed first in this folder; margins chosen after a look at results prove nothing"
    for arm in (batch.sgd, *(pairing.arm for pairing in batch.pairings)):
        yield from (f": {note}" for note in _of_arm(arm))
        if by_loss:
            yield from (f": {note}" for note in _worse_than_tuned(arm, batch.margins["train_loss"]))
    for pairing in batch.pairings:
        beta = f", β {pairing.arm.momentum:g}: "
        yield from (beta + note for note in [*_of_pairing(pairing), *_at_equal_rates(batch, pairing.arm)])


def _worse_than_tuned(arm: Arm, margin: float) -> Iterator[str]:
    """Where tuning seeds were too few to see how a rate does: worse by the margin and by two standard errors."""
    for tuned in (score for score in arm.tuning if score.effective_lr == arm.effective_lr):
        if arm.train_loss is None or arm.train_loss_se is None or tuned.standard_error is None:
            continue
        worse = arm.train_loss - tuned.mean
        if worse > max(margin, 2 * math.hypot(arm.train_loss_se, tuned.standard_error)):
            yield (
                f"{_rule(arm)} ended at {arm.train_loss:.2g}, but at {tuned.mean:.2g} while its rate was chosen: more "
                "tuning seeds would choose better"
            )


def _rule(arm: Arm) -> str:
    return f"SGDM (β = {arm.momentum:g})" if arm.momentum else "SGD"


def _of_arm(arm: Arm) -> Iterator[str]:
    rule = _rule(arm)
    if arm.effective_lr is None:
        yield f"{rule} failed on some seed at every rate"
    elif arm.at_edge:
        yield f"the rate of {rule} is at the edge of the grid"
    if arm.rate_without_crashes is not None:
        yield (
            f"crashes while tuning decided the rate of {rule}, which would be {arm.rate_without_crashes:g} without "
            "them; if the machine was at fault, the verdict is not about momentum: use --retry-failed"
        )
    if arm.failed:
        yield f"{arm.failed} of {arm.runs} runs of {rule} failed{_crashes(arm)}"
    if arm.test_accuracy is not None and arm.test_accuracy > 1:
        yield (
            f"the test accuracy of {rule} is {arm.test_accuracy:.3g}: report shares, from 0 to 1, or set "
            "--margin-accuracy in the unit of your own metric"
        )
    if not arm.failed and arm.train_loss_se == 0:
        yield f"all {arm.runs} runs of {rule} ended at the same loss: does the seed change anything in them?"


def _crashes(arm: Arm) -> str:
    if not arm.crashed:
        return ""
    return f", {arm.crashed} without a result, the last: {_reason(arm.last_error)}"


def _reason(error: str | None) -> str:
    """Its first line; the rest, such as the tail of a log, is in the table of runs."""
    return (error or "").partition("\n")[0]


def _of_pairing(pairing: Pairing) -> Iterator[str]:
    for measure in JUDGED if pairing.decisions else ():
        if measure not in pairing.decisions:
            yield f"no verdict on {JUDGED[measure]}, which not all runs reported"
    for measure, decision in pairing.decisions.items():
        if decision.verdict is Verdict.UNDECIDED:
            pairs = f"about {decision.pairs_needed:,}" if decision.pairs_needed else "more than 1,000,000"
            yield f"{pairs} pairs would decide on {JUDGED[measure]}"
    if pairing.speed and pairing.loss_ratio and math.isfinite(pairing.loss_ratio):
        speed = pairing.speed
        yield (
            f"SGD's loss is {pairing.loss_ratio:.3g} × SGDM's; "
            f"{speed.level:.2g} after {speed.sgd:.1f} and {speed.sgdm:.1f} epochs"
        )


def _at_equal_rates(batch: BatchResult, arm: Arm) -> Iterator[str]:
    """Up to which rate the two rules, run at the same one, end within the margin (95 % intervals, no verdict)."""
    assert batch.margins is not None
    margin, same = batch.margins["train_loss"], None
    for row in sorted((r for r in batch.equal_rates if r.momentum == arm.momentum), key=lambda r: r.effective_lr):
        if row.failed_sgd or row.failed_sgdm:  # what failed alike does not agree
            break
        interval = row.differences["train_loss"]
        if interval.low <= -margin or interval.high >= margin:
            break
        same = row.effective_lr
    if same is not None:
        yield f"run at equal rates, their losses agree up to η = {same:g} (95 %)"
