"""The page of few-shot fine-tuning: SGD beside SGDM beside zero-shot, and the paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from lightball.report.making import making
from lightball.report.numbers import UNKNOWN
from lightball.report.page import Badge, Figure, Page, Section, Table
from lightball.report.reproduce.common import (
    in_sum,
    listed,
    mean_and_deviation,
    percent,
    points,
    points_with_interval,
    rate,
)
from lightball.report.reproduce.forest import Difference, Spread, forest, spreads
from lightball.reproduce.finetune import FinetuneResult, Row, Score, verdicts
from lightball.reproduce.finetune_settings import FinetuneSettings
from lightball.stats import Decision


def finetune_page(result: FinetuneResult) -> Page:
    """The table, its figures, and how to make it again; what is missing is said at the top."""
    given = result.settings
    judged = [row for row in result.rows if row.sgd is not None]
    return Page(
        title=f"Few-shot fine-tuning of {given.model_name}",
        answer=in_sum(verdicts(judged)) or "No task has a verdict yet.",
        lead=(_lead(given), *_notes(judged)),
        notice="" if result.finished else _unfinished(result),
        sections=(
            *([Section("Test accuracy", (), (_table(judged, given), *_figures(judged)))] if judged else []),
            making([(field.name.replace("_", "-"), _shown(getattr(given, field.name))) for field in fields(given)]),
        ),
    )


def _lead(given: FinetuneSettings) -> str:
    head = "the masked-LM head at the mask of a prompt" if given.head == "prompt" else "a fresh linear layer"
    return (
        f"{given.model_name} with {head}, {given.k} examples a class to train on and as many to choose by, another "
        f"sample for each seed; {given.num_steps:,} steps of {given.batch_size}, the best checkpoint on the selection "
        f"data tested. Both rules take the rate that was best for them on samples of their own; SGDM has "
        f"β = {given.momentum:g}."
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    said = []
    rules = [(row, rule, score) for row in rows for rule, score in (("SGD", row.sgd), ("SGDM", row.sgdm)) if score]
    if edges := [f"{rule} on {row.task}" for row, rule, score in rules if score.at_edge]:
        said.append(
            f"The best rate is at the edge of the grid for {listed(edges)}: a wider grid may have a better one."
        )
    if failed := [
        f"{score.failed} of {score.runs} of {rule} on {row.task}" for row, rule, score in rules if score.failed
    ]:
        said.append(f"Runs failed, and score what the untrained model does: {listed(failed)}.")
    if open_ := [
        f"{row.decision.pairs_needed:,} on {row.task}" for row in rows if row.decision and row.decision.pairs_needed
    ]:
        said.append(f"Pairs that would decide it, by the spread of these: about {listed(open_)}.")
    return said


def _unfinished(result: FinetuneResult) -> str:
    missing = [task for task in result.settings.tasks if task not in {row.task for row in result.rows}]
    begun = [
        f"{row.task} has {row.tuned} tuning and {row.confirmed} confirmation runs"
        for row in result.rows
        if not row.finished
    ]
    return f"Not finished: {listed([*begun, *(f'{task} has none' for task in missing)])}. The same command goes on."


def _table(rows: Sequence[Row], given: FinetuneSettings) -> Table:
    zero_shot = given.head == "prompt"
    confidence = next((row.decision.interval.confidence for row in rows if row.decision), None)
    level = "" if confidence is None else f" ({100 * confidence:.3g} %)"
    head = (
        "task",
        *(("zero-shot",) if zero_shot else ()),
        "SGD η",
        "SGD",
        "SGDM η",
        "SGDM",
        f"difference{level}",
        "verdict",
    )
    cells = tuple(
        (
            row.task,
            *((percent(row.zero_shot),) if zero_shot else ()),
            *_cells(row.sgd),
            *_cells(row.sgdm),
            points_with_interval(row.decision),
            Badge(str(row.decision.verdict), str(row.decision.verdict)) if row.decision else UNKNOWN,
        )
        for row in rows
    )
    pairs = max((row.decision.interval.n for row in rows if row.decision), default=0)
    caption = (
        f"Test accuracy in %, mean ± standard deviation over {pairs} seeds; the difference is SGDM − SGD in points, "
        f"of which {points(given.margin_accuracy).removeprefix('+')} do not matter"
    )
    return Table(head, cells, caption, numeric=tuple(range(1, len(head) - 1)))


def _cells(score: Score | None) -> tuple[str, str]:
    if score is None:
        return UNKNOWN, UNKNOWN
    return rate(score.lr), mean_and_deviation(score.mean, score.sd)


def _figures(rows: Sequence[Row]) -> list[Figure]:
    return [*_figure_of_differences(rows), *_figure_of_means(rows)]


def _figure_of_differences(rows: Sequence[Row]) -> list[Figure]:
    found = [_difference(row.task, row.decision) for row in rows if row.decision]
    if not found:
        return []
    chart = forest(
        found,
        x=("SGDM − SGD, test accuracy in points", "← SGD better\u2003\u2003SGDM better →"),
        description="Mean paired difference of test accuracy and its interval for each task, with the margin as a "
        "band; positive favours momentum. Verdicts:",
    )
    return [Figure("finetune-differences", chart, "Paired differences by task; in the band they do not matter.")]


def _difference(task: str, decision: Decision) -> Difference:
    i = decision.interval
    mean, low, high, margin = (100 * value for value in (i.mean, i.low, i.high, decision.margin))
    return Difference(task, mean, low, high, margin, str(decision.verdict))


def _figure_of_means(rows: Sequence[Row]) -> list[Figure]:
    values = [value for row in rows for value in _spreads(row)]
    if not values:
        return []
    chart = spreads(
        values,
        x="test accuracy (%)",
        description="Mean test accuracy of SGD and SGDM for each task, with one standard deviation over seeds.",
    )
    said = "Test accuracy by task: mean, and one standard deviation over seeds either way."
    return [Figure("finetune-accuracy", chart, said)]


def _spreads(row: Row) -> Iterator[Spread]:
    for series, score in (("SGD", row.sgd), ("SGDM", row.sgdm)):
        if score is not None and score.mean is not None:
            yield Spread(row.task, series, 100 * score.mean, None if score.sd is None else 100 * score.sd)
    if row.zero_shot is not None:
        yield Spread(row.task, "zero-shot", 100 * row.zero_shot, None)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return UNKNOWN
    return f"{value:g}" if isinstance(value, float) else str(value)
