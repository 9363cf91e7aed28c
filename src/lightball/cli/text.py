"""Plan and result as text of at most 80 columns, the same on a terminal and in a file."""

from __future__ import annotations

import textwrap
from pathlib import Path

from lightball.cli.notes import notes
from lightball.stats import Verdict
from lightball.studies.plan import Plan, in_words
from lightball.studies.result import JUDGED, Arm, BatchResult, Judged, Pairing, Result, Span
from lightball.studies.settings import Settings

WIDTH = 80
_PREDICATES = {
    Verdict.NO_VALUE: "has no value",
    Verdict.HELPS: "helps",
    Verdict.HURTS: "hurts",
    Verdict.UNDECIDED: "undecided",
}


def plan_text(task: str, settings: Settings, plan: Plan, folder: Path) -> str:
    """What is about to run, and how long about."""
    fewest, most = plan.runs
    sizes = ", ".join(map(str, settings.batch_sizes))
    epochs = (
        f"; {settings.epochs} epoch{'s' if settings.epochs > 1 else ''}" if plan.steps else ""
    )  # a script has its own
    compiled = any(batch.compiled for batch in plan.batches)
    workers = f"{plan.num_workers} worker{'s' if plan.num_workers > 1 else ''}"
    runs = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    low, high = settings.lr[0], settings.lr[-1]
    rates = f"{len(settings.lr)} from {low:g} to {high:g}" if low < high else f"{low:g}"
    growth = "; the grid grows where needed" if settings.max_extensions else ""
    more = ", before the grid grows" if settings.max_extensions else ""
    lines = [
        f"Does {task} need momentum? SGD against SGDM with β = {_listed(settings.momentum)}",
        f"  batch sizes    {sizes}{epochs}",
        f"  effective lr   {rates}{growth}",
        f"  runs           {runs}{more}",
        *([f"  steps          at least {plan.steps:,}"] if plan.steps else []),
        f"  time           {_time(plan)} on {workers}{', steps being compiled' if compiled else ''}",
        f"  results in     {folder}",
        "",
    ]
    return "\n".join(_wrapped(line, indent=17) for line in lines)


def _time(plan: Plan) -> str:
    if plan.seconds is None:
        return "not known before some runs are done,"
    low, high = (in_words(s) for s in plan.seconds)
    return f"about {low} to {high}" if low != high else f"about {low}"


def result_text(result: Result) -> str:
    """A table of both measures, then the answer."""
    lines: list[str] = []
    for measure, name in JUDGED.items():
        if not _reported(result, measure):
            continue
        lines += [
            f"{name.capitalize()}, at the rates selected for each rule{_margins(result, measure)}",
            _header(),
            *_rows(result, measure),
            "",
        ]
    lines += [*map(_wrapped, all_notes), ""] if (all_notes := notes(result)) else []
    lines.append(verdict_text(result))
    lines.append(f"{result.computed_runs:,} runs computed, {result.reused_runs:,} found, in {in_words(result.seconds)}")
    if result.crashed_runs:
        lines.append(_wrapped(f"{result.crashed_runs:,} of them crashed: lightball runs {result.folder}"))
    return "\n".join(lines)


def verdict_text(result: Result) -> str:
    """The line in sum, for each measure."""
    return "\n".join(_wrapped(f"{name.capitalize()}: {_span_text(result, m)}.") for m, name in JUDGED.items())


def _reported(result: Result, measure: Judged) -> bool:
    """Whether any script told it; where no rate trained at all, nothing could."""
    arms = [arm for b in result.batches for arm in (b.sgd, *(p.arm for p in b.pairings)) if arm.runs]
    return not arms or any(getattr(arm, measure) is not None for arm in arms)


def _span_text(result: Result, measure: Judged) -> str:
    if not _reported(result, measure):
        return "not reported"
    span = result.summary(measure)
    parts = []
    if span.no_value_up_to is not None:
        parts.append(f"has no value up to batch size {span.no_value_up_to}")
    if span.helps_from is not None:
        parts.append(f"helps from {span.helps_from} on")
    several = len(result.settings.momentum) > 1
    for batch in result.batches:
        for pairing in batch.pairings:
            verdict = pairing.verdict(measure)
            if not _within(span, batch.batch_size, verdict):
                rule = f" with β = {pairing.arm.momentum:g}" if several else ""
                parts.append(f"{_PREDICATES[verdict]} at {batch.batch_size}{rule}")
    return "momentum " + ", ".join(parts)


def _within(span: Span, batch_size: int, verdict: Verdict) -> bool:
    """Whether the span says it already."""
    if verdict is Verdict.NO_VALUE:
        return span.no_value_up_to is not None and batch_size <= span.no_value_up_to
    return verdict is Verdict.HELPS and span.helps_from is not None and batch_size >= span.helps_from


def _margins(result: Result, measure: Judged) -> str:
    """What difference does not matter, over the batch sizes."""
    values = [_signed(batch.margins[measure], measure) for batch in result.batches if batch.margins]
    if not values:
        return ""
    low, high = min(values).removeprefix("+"), max(values).removeprefix("+")
    return f"; margin {low}" if low == high else f"; margin {low} to {high}"


def _header() -> str:
    return (
        f"{'batch':>6} {'β':>6} {'SGD η':>7} {'SGDM η':>7} {'SGD':>7} {'SGDM':>7} "
        f"{'value of momentum':>24} {'verdict':>9}"
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
        f"{batch.batch_size:>6} {arm.momentum:>6g} {_rate(batch.sgd):>7} {_rate(arm):>7} "
        f"{_value(batch.sgd, measure):>7} {_value(arm, measure):>7} {value:>24} {pairing.verdict(measure)!s:>9}"
    )


def _rate(arm: Arm) -> str:
    if arm.effective_lr is None:
        return "–"
    return f"{arm.effective_lr:.3g}" if arm.effective_lr >= 1e-3 else f"{arm.effective_lr:.1e}"


def _value(arm: Arm, measure: Judged) -> str:
    value = getattr(arm, measure)
    if value is None:
        return "–"
    return _fitted(value, 4, 7) if measure == "train_loss" else f"{_fitted(100 * value, 2, 5)} %"


def _signed(value: float, measure: Judged) -> str:
    """A difference, or one in percentage points, in 6 characters."""
    if measure == "train_loss":
        return _fitted(value, 3, 6, "+")
    return _fitted(round(100 * value, 2) + 0.0, 2, 6, "+")  # + 0.0: a rounded −0 is 0


def _fitted(value: float, decimals: int, width: int, sign: str = "-") -> str:
    """A number of ``width`` characters: fewer decimals where it is large, an exponent where it would not show."""
    fixed = [f"{value:{sign}.{d}f}" for d in range(decimals, -1, -1)]
    exponents = [f"{value:{sign}.{d}e}" for d in (1, 0)]
    shows = value == 0 or abs(value) >= 0.5 * 10**-decimals
    candidates = [*fixed, *exponents] if shows else [*exponents, fixed[-1]]
    return next((text for text in candidates if len(text) <= width), candidates[-1])


def _wrapped(line: str, indent: int = 2) -> str:
    """Longer lines go on below, indented; a path stays in one piece, for it is copied from here."""
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)
