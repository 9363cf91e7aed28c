"""Plan and result as text of at most 80 columns, the same on a terminal and in a file."""

from __future__ import annotations

from pathlib import Path

from lightball.stats import Verdict
from lightball.studies.plan import Plan, in_words
from lightball.studies.result import Arm, BatchResult, Judged, Pairing, Result
from lightball.studies.settings import Settings

MEASURES: dict[Judged, str] = {"train_loss": "training loss", "test_accuracy": "test accuracy"}


def plan_text(task: str, settings: Settings, plan: Plan, folder: Path) -> str:
    """What is about to run, and how long at most."""
    fewest, most = plan.runs
    low, high = (in_words(s) for s in plan.seconds)
    sizes = ", ".join(map(str, settings.batch_sizes))
    compiled = any(batch.compiled for batch in plan.batches)
    workers = f"{plan.num_workers} worker{'s' if plan.num_workers > 1 else ''}"
    lines = [
        f"Does {task} need momentum? SGD against SGDM with β = {_listed(settings.momentum)}",
        f"  batch sizes    {sizes}; {settings.epochs} epochs",
        f"  effective lr   {len(settings.lr)} from {settings.lr[0]:g} to {settings.lr[-1]:g}; the grid grows where needed",
        f"  runs           {fewest:,} to {most:,}, at least {plan.steps:,} steps in all",
        f"  time           about {low} to {high} on {workers}{', steps being compiled' if compiled else ''}",
        f"  results in     {folder}",
        "",
    ]
    return "\n".join(lines)


def result_text(result: Result) -> str:
    """A table of both measures, then the answer."""
    lines: list[str] = []
    for measure, name in MEASURES.items():
        lines += [
            f"{name.capitalize()}, at the rates selected for each rule",
            _header(),
            *_rows(result, measure),
            "",
        ]
    lines += _notes(result)
    lines.append(verdict_text(result))
    lines.append(f"{result.computed_runs:,} runs computed, {result.reused_runs:,} found, in {in_words(result.seconds)}")
    return "\n".join(lines)


def verdict_text(result: Result) -> str:
    """The line in sum, for each measure."""
    return "\n".join(f"{name.capitalize()}: {_span_text(result, m)}." for m, name in MEASURES.items())


def _span_text(result: Result, measure: Judged) -> str:
    span = result.summary(measure)
    parts = []
    if span.no_value_up_to is not None:
        parts.append(f"has no value up to batch size {span.no_value_up_to}")
    if span.helps_from is not None:
        parts.append(f"helps from {span.helps_from} on")
    others = [
        f"{p.verdict(measure)} at {b.batch_size}"
        for b in result.batches
        for p in b.pairings
        if p.verdict(measure) in (Verdict.HURTS, Verdict.UNDECIDED)
    ]
    return "momentum " + ", ".join([*parts, *others]) if parts or others else "no clear pattern"


def _header() -> str:
    return (
        f"{'batch':>6} {'β':>5} {'SGD η':>7} {'SGDM η':>7} {'SGD':>8} {'SGDM':>8} "
        f"{'value of momentum':>22} {'verdict':>10}"
    )


def _rows(result: Result, measure: Judged) -> list[str]:
    return [_row(batch, pairing, measure) for batch in result.batches for pairing in batch.pairings]


def _row(batch: BatchResult, pairing: Pairing, measure: Judged) -> str:
    arm = pairing.arm
    decision = pairing.decisions.get(measure)
    value = "–"
    if decision:
        i = decision.interval
        value = f"{_signed(i.mean, measure)} ({_signed(i.low, measure)}, {_signed(i.high, measure)})"
    return (
        f"{batch.batch_size:>6} {arm.momentum:>5g} {_rate(batch.sgd):>7} {_rate(arm):>7} "
        f"{_value(batch.sgd, measure):>8} {_value(arm, measure):>8} {value:>22} {pairing.verdict(measure)!s:>10}"
    )


def _notes(result: Result) -> list[str]:
    """What the tables do not say: margins, pairs, failures, edges, what would decide."""
    notes = []
    for batch in result.batches:
        if batch.margins is None:
            notes.append(f"batch {batch.batch_size}: no rate trained; see the settings")
            continue
        for arm in (batch.sgd, *(p.arm for p in batch.pairings)):
            rule = _rule(arm)
            if arm.effective_lr is None:
                notes.append(f"batch {batch.batch_size}: {rule} failed on some seed at every rate")
            elif arm.at_edge:
                notes.append(f"batch {batch.batch_size}: the rate of {rule} is at the edge of the grid")
            if arm.failed:
                notes.append(f"batch {batch.batch_size}: {arm.failed} of {arm.runs} runs of {rule} failed")
        for pairing in batch.pairings:
            notes += [
                f"batch {batch.batch_size}, {MEASURES[m]}: about {d.pairs_needed} pairs would decide"
                for m, d in pairing.decisions.items()
                if d.verdict is Verdict.UNDECIDED and d.pairs_needed
            ]
            if pairing.speed and pairing.loss_ratio:
                s = pairing.speed
                notes.append(
                    f"batch {batch.batch_size}, β {pairing.arm.momentum:g}: SGD's loss is {pairing.loss_ratio:.3g} × "
                    f"SGDM's; {s.level:.2g} after {s.sgd:.1f} and {s.sgdm:.1f} epochs"
                )
    return [*notes, ""] if notes else []


def _rule(arm: Arm) -> str:
    return f"SGDM (β = {arm.momentum:g})" if arm.momentum else "SGD"


def _rate(arm: Arm) -> str:
    return "–" if arm.effective_lr is None else f"{arm.effective_lr:.3g}"


def _value(arm: Arm, measure: Judged) -> str:
    value = getattr(arm, measure)
    if value is None:
        return "–"
    return f"{value:.4f}" if measure == "train_loss" else f"{100 * value:.2f} %"


def _signed(value: float, measure: Judged) -> str:
    return f"{value:+.3f}" if measure == "train_loss" else f"{100 * value:+.2f}"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)
