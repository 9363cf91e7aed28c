"""Plan and result as text of at most 80 columns, the same on a terminal and in a file."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from lightball.report import numbers
from lightball.report.answer import in_sum, is_reported, unfinished
from lightball.report.notes import notes
from lightball.report.numbers import listed
from lightball.studies.plan import Plan, in_words, size_in_words
from lightball.studies.result import JUDGED, BatchResult, Judged, Pairing, Result
from lightball.studies.settings import Settings
from lightball.studies.study import Study

WIDTH = 80


def plan_text(task: str, settings: Settings, plan: Plan, folder: Path) -> str:
    """What is about to run, and how long about."""
    fewest, most = plan.runs
    sizes = ", ".join(map(str, settings.batch_sizes))
    epochs = f"; {_length(settings)}" if plan.steps else ""  # a script has its own
    compiled = any(batch.compiled for batch in plan.batches)
    workers = f"{plan.num_workers} worker{'s' if plan.num_workers > 1 else ''}"
    runs = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    low, high = settings.lr[0], settings.lr[-1]
    rates = f"{len(settings.lr)} from {low:g} to {high:g}" if low < high else f"{low:g}"
    growth = "; the grid grows where needed" if settings.max_extensions else ""
    growth += "; SGD takes the rate of SGDM" if settings.tune == "sgdm" else ""
    more = ", before the grid grows" if settings.max_extensions else ""
    lines = [
        f"Does {task} need momentum? SGD against SGDM with β = {listed(settings.momentum)}",
        f"  batch sizes    {sizes}{epochs}",
        f"  effective lr   {rates}{growth}",
        *([f"  training       {training}"] if (training := _training(settings)) else []),
        f"  runs           {runs}{more}",
        *([f"  steps          at least {plan.steps:,}"] if plan.steps else []),
        f"  time           {_time(plan)} on {workers}{', steps being compiled' if compiled else ''}",
        *([f"  memory         about {size_in_words(plan.memory)} a worker"] if plan.memory else []),
        f"  results in     {folder}",
        *([f"  note           {note}"] if (note := _short_runs(settings, plan)) else []),
        "",
    ]
    return "\n".join(_wrapped(line, indent=17) for line in lines)


# What changes how a run is trained or evaluated, beside rates, batch sizes and epochs.
_TRAINING = (
    "engine",
    "ell",
    "batch_norm",
    "weight_decay",
    "schedule",
    "sampling",
    "drop_last",
    "precision",
    "accumulate",
    "clip_norm",
    "eval_every",
    "checkpoint",
    "decay",
    "in_backward",
)
_FEW = 4  # steps of a run, in memories of the buffer: fewer, and SGDM has hardly started


def _length(settings: Settings) -> str:
    """Of a run."""
    count, unit = (settings.num_steps, "step") if settings.num_steps else (settings.epochs, "epoch")
    return f"{count:,} {unit}{'s' if count > 1 else ''}"


def _training(settings: Settings) -> str:
    """What is not as by default, by the names of the command line."""
    changed = {
        name: getattr(settings, name) for name in _TRAINING if getattr(settings, name) != getattr(Settings, name)
    }
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in changed.items())


def _short_runs(settings: Settings, plan: Plan) -> str:
    memory = round(1 / (1 - settings.momentum[-1]), 6)
    short = {b.batch_size: b.steps_per_run for b in plan.batches if (b.steps_per_run or math.inf) < _FEW * memory}
    if not short:
        return ""
    runs = ", ".join(f"{steps} steps at batch size {b}" for b, steps in short.items())
    return f"a run has {runs}, few beside momentum's memory of {memory:.3g}: that SGDM starts slowly weighs"


def _time(plan: Plan) -> str:
    if plan.seconds is None:
        return "not known before some runs are done,"
    low, high = (in_words(s) for s in plan.seconds)
    return f"about {low} to {high}" if low != high else f"about {low}"


def result_text(result: Result) -> str:
    """What a comparison found: the tables, what they do not say, the answer, and what it took."""
    took = f"{result.computed_runs:,} runs computed, {result.reused_runs:,} found, in {in_words(result.seconds)}"
    return "\n".join([*_tables(result), verdict_text(result), took, *_crashes(result)])


def study_text(study: Study) -> str:
    """The same of a study that is read back, which may be half done."""
    result = study.result
    lines = [*_tables(result), verdict_text(result)] if result.batches else []
    if not study.finished:
        lines += [
            *([""] if lines else []),
            "Unfinished:",
            *(_wrapped(f"  {line}", indent=4) for line in unfinished(study)),
        ]
    took = f", computed in {in_words(study.seconds)}" if study.seconds else ""
    lines.append(f"{study.num_runs:,} finished runs{took}")
    return "\n".join([*lines, *_crashes(result)])


def _tables(result: Result) -> list[str]:
    lines: list[str] = []
    for measure, name in JUDGED.items():
        if not is_reported(result, measure):
            continue
        lines += [
            f"{name.capitalize()}, at the rates selected for each rule{_margins(result, measure)}",
            _header(),
            *_rows(result, measure),
            "",
        ]
    said = notes(result)
    return [*lines, *map(_wrapped, said), ""] if said else lines


def _crashes(result: Result) -> list[str]:
    if not result.crashed_runs:
        return []
    return [_wrapped(f"{result.crashed_runs:,} of them crashed: lightball runs {result.folder}")]


def verdict_text(result: Result) -> str:
    """The line in sum, for each measure."""
    return "\n".join(_wrapped(f"{name.capitalize()}: {in_sum(result, m)}.") for m, name in JUDGED.items())


def _margins(result: Result, measure: Judged) -> str:
    values = [batch.margins[measure] for batch in result.batches if batch.margins]
    return f"; margin {numbers.margins(values, measure)}" if values else ""


def _header() -> str:
    return (
        f"{'batch':>6} {'β':>6} {'SGD η':>7} {'SGDM η':>7} {'SGD':>7} {'SGDM':>7} "
        f"{'value of momentum':>24} {'verdict':>9}"
    )


def _rows(result: Result, measure: Judged) -> list[str]:
    return [_row(batch, pairing, measure) for batch in result.batches for pairing in batch.pairings]


def _row(batch: BatchResult, pairing: Pairing, measure: Judged) -> str:
    sgd, arm = batch.sgd, pairing.arm
    verdict = pairing.verdict(measure) if measure in pairing.decisions else numbers.UNKNOWN
    return (
        f"{batch.batch_size:>6} {arm.momentum:>6g} {numbers.rate(sgd):>7} {numbers.rate(arm):>7} "
        f"{numbers.score(sgd, measure):>7} {numbers.score(arm, measure):>7} "
        f"{numbers.difference(pairing.decisions.get(measure), measure):>24} {verdict:>9}"
    )


def _wrapped(line: str, indent: int = 2) -> str:
    """Longer lines go on below, indented; a path stays in one piece, for it is copied from here."""
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
