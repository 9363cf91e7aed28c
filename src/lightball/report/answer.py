"""The answer in words, for the page and for the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lightball.stats import Verdict
from lightball.studies.result import JUDGED, BatchResult, Judged, Pairing, Result, Span
from lightball.studies.study import BatchState, Study

_PRESENT = {
    Verdict.NO_VALUE: "has no value",
    Verdict.HELPS: "helps",
    Verdict.HURTS: "hurts",
    Verdict.UNDECIDED: "undecided",
    None: "without a verdict",
}
_PAST = {Verdict.NO_VALUE: "had no value", Verdict.HELPS: "helped", Verdict.HURTS: "hurt"}
_LONGEST = 110  # characters that a headline says of a measure; beyond, cases are counted

Fact = tuple[Verdict | None, str]
"""A verdict, and at which batch sizes; None where there is nothing to decide on."""


def in_sum(result: Result, measure: Judged) -> str:
    """What is said of one measure: "momentum has no value up to batch size 32, helps from 128 on"."""
    if not is_reported(result, measure):
        return "not reported"
    return "momentum " + ", ".join(f"{_PRESENT[verdict]} {place}" for verdict, place in _facts(result, measure))


def headline(study: Study) -> str:
    """The answer to the question of a study, in a sentence; of what is finished, if it is only half done."""
    result = study.result
    start = f"On {result.task}" if study.finished else f"So far, on {result.task}"
    if not result.batches:
        return f"{start}, nothing is decided yet."
    if not any(pairing.decisions for batch in result.batches for pairing in batch.pairings):
        return f"{start}, there is no verdict: {_why_none(result.batches)}."
    reported = [measure for measure in JUDGED if is_reported(result, measure)]
    said = {measure: _sentence(result, measure) for measure in reported}
    if any(len(text) > _LONGEST for text in said.values()):
        said = {measure: _counted(result, measure) for measure in reported}
    if len(set(said.values())) == 1:
        return f"{start}, {next(iter(said.values()))}."
    return f"{start}, " + "; ".join(f"by {JUDGED[measure]}, {text}" for measure, text in said.items()) + "."


def unfinished(study: Study) -> list[str]:
    """How far each batch size is that is not finished, a line for each; and what is damaged."""
    lines = [f"batch {batch.batch_size}: {_how_far(batch)}" for batch in study.batches if not batch.finished]
    if lines and study.damaged:
        count = len(study.damaged)
        files = f"{count} damaged files are" if count > 1 else f"the damaged file {study.damaged[0].name} is"
        lines.append(f"{files} not believed, and what depends on it is left out: run the command of the study again")
    return lines


def is_reported(result: Result, measure: Judged) -> bool:
    """Whether any run told this measure; where no rate trained at all, nothing could."""
    arms = [arm for b in result.batches for arm in (b.sgd, *(p.arm for p in b.pairings)) if arm.runs]
    return not arms or any(getattr(arm, measure) is not None for arm in arms)


def _how_far(batch: BatchState) -> str:
    if batch.stopped:
        return f"cannot go on: {batch.stopped.partition(chr(10))[0]}"
    tuned, confirmed = len(batch.tuned), len(batch.confirmed)
    if not batch.choices:
        return f"learning rates are being tuned, {tuned:,} runs finished" if tuned else "no run is finished"
    if batch.result is None:
        return f"rates are selected; {confirmed:,} runs on fresh seeds finished, too few for a first verdict"
    return f"more pairs are being added where it is undecided; {confirmed:,} runs on fresh seeds finished"


def _sentence(result: Result, measure: Judged) -> str:
    facts = _facts(result, measure)
    clauses = [f"{_PAST[verdict]} {place}" for verdict, place in facts if verdict in _PAST]
    undecided = [place for verdict, place in facts if verdict is Verdict.UNDECIDED]
    without = [place for verdict, place in facts if verdict is None]
    text = f"momentum {_listed(clauses)}" if clauses else ""
    if undecided and text:
        text += f"; {_listed(undecided)} it is undecided"
    elif undecided:
        text = f"the value of momentum is undecided {_listed(undecided)}"
    if without:
        text += f"{'; ' if text else ''}{_listed(without)} there is no verdict"
    return text if "batch size" in text else re.sub(r"\b(at|from) (?=\d)", r"\1 batch size ", text, count=1)


def _counted(result: Result, measure: Judged) -> str:
    verdicts = Counter(_verdict(pairing, measure) for batch in result.batches for pairing in batch.pairings)
    clauses = [f"{_PAST[verdict]} in {verdicts[verdict]}" for verdict in _PAST if verdicts[verdict]]
    undecided, without = verdicts[Verdict.UNDECIDED], verdicts[None]
    total = verdicts.total()
    if clauses:
        text = f"momentum {_listed(clauses)} of {total} comparisons"
        text += f"; {undecided} are undecided" if undecided else ""
    else:
        share = f"{undecided} of {total}" if without else f"all {total}"
        text = f"the value of momentum is undecided in {share} comparisons"
    return text + (f"; {without} have no verdict" if without else "")


def _facts(result: Result, measure: Judged) -> list[Fact]:
    """The line in sum, then every batch size of which it does not speak, those with the same verdict together."""
    only = len(result.settings.batch_sizes) == 1
    complete = len(result.batches) == len(result.settings.batch_sizes)
    span = result.summary(measure) if complete else Span(None, None)  # "up to" would speak of what is not known yet
    facts: list[Fact] = []
    if span.no_value_up_to is not None:
        facts.append((Verdict.NO_VALUE, f"{'at' if only else 'up to'} batch size {span.no_value_up_to}"))
    if span.helps_from is not None:
        facts.append((Verdict.HELPS, f"at batch size {span.helps_from}" if only else f"from {span.helps_from} on"))
    several = len(result.settings.momentum) > 1
    others: dict[tuple[Verdict | None, str], list[int]] = {}
    for batch in result.batches:
        for pairing in batch.pairings:
            verdict = _verdict(pairing, measure)
            if not _within(span, batch.batch_size, verdict):
                rule = f" with β = {pairing.arm.momentum:g}" if several else ""
                others.setdefault((verdict, rule), []).append(batch.batch_size)
    return facts + [(verdict, f"at {_listed(sizes)}{rule}") for (verdict, rule), sizes in others.items()]


def _verdict(pairing: Pairing, measure: Judged) -> Verdict | None:
    decision = pairing.decisions.get(measure)
    return decision.verdict if decision else None


def _within(span: Span, batch_size: int, verdict: Verdict | None) -> bool:
    """Whether the span says it already."""
    if verdict is Verdict.NO_VALUE:
        return span.no_value_up_to is not None and batch_size <= span.no_value_up_to
    return verdict is Verdict.HELPS and span.helps_from is not None and batch_size >= span.helps_from


def _why_none(batches: Sequence[BatchResult]) -> str:
    if all(batch.margins is None for batch in batches):
        return "no learning rate trained at any batch size"
    return "at every batch size one of the rules failed on some seed at every learning rate"


def _listed(items: Sequence[object]) -> str:
    *others, last = map(str, items)
    return f"{', '.join(others)} and {last}" if others else last
