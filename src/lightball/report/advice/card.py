"""What the command prints: the answer, and a fact for each thing that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightball.report.advice.checked import answer
from lightball.report.advice.words import difference, number, sentence, size
from lightball.report.page import Facts, Page, Section

if TYPE_CHECKING:
    from lightball.forecast.advice import Advice
    from lightball.studies.verification import Verification

_FEW = 2  # of what would change the answer, on a card


def card(task: str, advice: Advice, verification: Verification | None = None) -> Page:
    """The answer and the most important facts, in about a dozen lines."""
    sections = [Section("In short", (), (facts(advice, most_changes=_FEW),))]
    if verification is not None:
        sections.append(Section("Forecast and measurement", verification.sentences))
    return Page(title(task, advice), sentence(answer(advice, verification)), sections=tuple(sections))


def title(task: str, advice: Advice) -> str:
    given = advice.setting
    return (
        f"{task}: momentum {given.momentum:g} at {given.convention} lr {given.lr:g}, batch size {advice.batch_size:,}"
    )


def facts(advice: Advice, most_changes: int | None = None) -> Facts:
    """What was asked, with so many of the things that would change the answer."""
    items = [
        ("regime", f"{advice.regime.name}: {advice.regime.reason}" if advice.regime.reason else advice.regime.name),
        ("momentum here", _here(advice)),
        ("best tuned", _best_tuned(advice)),
        ("critical batch", _critical(advice)),
        ("without momentum", advice.without_momentum),
        ("memory saved", size(advice.memory_saved_bytes)),
    ]
    if advice.more_batches is not None:
        items.append(("not enough data", f"{advice.more_batches:,} more batches are needed"))
    changes = advice.what_would_change[:most_changes]
    items += [("would change it" if not place else "", sentence(said)) for place, said in enumerate(changes)]
    return Facts(tuple(items))


def _here(advice: Advice) -> str:
    """The value of momentum at the setting, if the forecast stands by it."""
    value = advice.value_of_momentum
    if not value.valid:
        return f"not known over {value.num_steps:,} steps: {value.reason}"
    return (
        f"{value.verdict}, {difference(value.difference, value.low, value.high)} in loss after {value.num_steps:,} "
        f"steps; margin {number(value.margin)}"
    )


def _best_tuned(advice: Advice) -> str:
    best = advice.best_tuned
    if best.sgd_loss is None or best.sgdm_loss is None:
        return f"{best.verdict}: {best.reason}"
    said = (
        f"{best.verdict}, SGD {number(best.sgd_loss)} at η = {number(best.sgd_lr)}, SGDM {number(best.sgdm_loss)} at "
        f"η = {number(best.sgdm_lr)} after {best.epochs} epochs"
    )
    return said if best.valid else f"{said}; not valid: {best.reason}"


def _critical(advice: Advice) -> str:
    """The batch size from which momentum pays, as a whole number."""
    critical = advice.critical_batch_size
    if critical.value is None:
        return critical.reason
    said = f"momentum pays from batch size {critical.value:,.0f}"
    if critical.low is not None or critical.high is not None:
        low = "1" if critical.low is None else f"{critical.low:,.0f}"
        said += f" ({low} to {critical.high:,.0f})" if critical.high is not None else f" (at least {low})"
    return f"{said}: {critical.reason}" if critical.reason else said
