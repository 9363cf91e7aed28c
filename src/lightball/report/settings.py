"""Settings, plan, versions and the command: what a reader needs to make a study again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightball.report.page import Code, Facts, Section, Table
from lightball.studies.plan import BatchPlan, in_words
from lightball.studies.settings import Settings
from lightball.studies.study import BatchState, Study

_NOT_OF_SCRIPTS = {"epochs", "sampling", "drop_last", "weight_decay", "schedule", "compile"}


def settings(study: Study) -> Section:
    """All options by the names that the command line has for them, and the plan."""
    asked = study.request.settings
    script = asked.engine == "command"
    shown = [field.name for field in fields(Settings) if not (script and field.name in _NOT_OF_SCRIPTS)]
    options = tuple((name.replace("_", "-"), _shown(getattr(asked, name))) for name in shown)
    return Section("Settings and plan", (), (Facts(options), _plan(study)), folded=True)


def making(study: Study) -> Section:
    """The command that makes the study again, and what it was made with."""
    asked = study.request
    first, *more = asked.settings.stages
    pairs = f"{first} to {more[-1]}" if more else str(first)
    facts = [
        ("last started", asked.started),
        ("computed in", in_words(study.seconds) if study.seconds else "not known"),
        ("device", str(study.basis.get("device", "chosen by the script"))),
        ("hardware", f"{asked.hardware}, {asked.plan.num_workers} worker{'s' if asked.plan.num_workers > 1 else ''}"),
        ("seeds", f"{asked.settings.tuning_seeds} for tuning; {pairs} others for pairs"),
        ("versions", ", ".join(f"{name} {version}" for name, version in asked.versions.items())),
        ("folder", str(study.folder)),
    ]
    if line := command_line(asked.command):
        return Section("Make it again", (), (Code(line), Facts(tuple(facts))))
    text = "It was made from Python, by lightball.compare with the settings above."
    return Section("Make it again", (text,), (Facts(tuple(facts)),))


def command_line(words: Sequence[str]) -> str:
    """What to type to run the command of a process again; "" where that is not known."""
    if not words or words[0] in ("", "-", "-c", "-m"):
        return ""
    program = Path(words[0])
    if program.name == "lightball" or program.parts[-2:] == ("lightball", "__main__.py"):
        return shlex.join(["lightball", *words[1:]])
    if program.suffix != ".py" or "site-packages" in program.parts:  # a notebook, or some other tool
        return ""
    return shlex.join(["python", *words])


def _plan(study: Study) -> Table:
    asked = study.request
    head = (
        "batch size",
        "steps a run",
        "runs at a time",
        "planned",
        "tuning finished",
        "confirmation finished",
    )
    states = {batch.batch_size: batch for batch in study.batches}
    rows = tuple(_planned(batch, states[batch.batch_size]) for batch in asked.plan.batches)
    estimate = asked.plan.seconds
    time = f" It was estimated to take {_range(in_words, estimate)}." if estimate else ""
    caption = f"The plan, before grids grow, and the runs that are finished.{time}"
    return Table(head, rows, caption, numeric=tuple(range(len(head))))


def _planned(batch: BatchPlan, state: BatchState) -> tuple[str, ...]:
    fewest, most = (batch.tuning_runs + runs for runs in batch.confirmation_runs)
    return (
        str(batch.batch_size),
        f"{batch.steps_per_run:,}" if batch.steps_per_run else "–",
        str(batch.width),
        _range("{:,}".format, (fewest, most)),
        f"{len(state.tuned):,}",
        f"{len(state.confirmed):,}",
    )


def _range(shown: Any, values: tuple[float, float]) -> str:
    low, high = map(shown, values)
    return low if low == high else f"{low} to {high}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
