"""What an experiment will cost: runs, steps, time and memory of each part and in all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightball.report.numbers import UNKNOWN
from lightball.report.page import Table
from lightball.report.plain import text_table
from lightball.reproduce.parts import PartPlan
from lightball.studies.plan import Plan, in_words

_GIGABYTE = 1e9


def plan_text(title: str, plans: Sequence[PartPlan], out: Path) -> str:
    """The plan as a table, a row for each part."""
    head = ("part", "runs", "steps", "time", "memory")
    rows = [(one.name, *_cells(_cost(one.plan))) for one in plans]
    if len(plans) > 1:
        rows.append(("in all", *_cells(_in_all(plans))))
    workers = max((one.plan.num_workers for one in plans), default=1)
    lines = [
        title,
        text_table(Table(head, tuple(rows), numeric=(1, 2, 3, 4))),
        f"  on {workers} worker{'s' if workers > 1 else ''}; results in {out}",
    ]
    return "\n".join(lines) + "\n"


def plan_json(plans: Sequence[PartPlan]) -> dict[str, Any]:
    """The same as plain numbers; seconds and bytes, null where they are not known."""
    return {"parts": {one.name: one.plan.as_json() for one in plans}, "in_all": _in_all(plans)}


def _cost(plan: Plan) -> dict[str, Any]:
    """Runs and seconds: the fewest and the most. Memory is that of all workers."""
    memory = None if plan.memory is None else plan.memory * plan.num_workers
    return {"runs": plan.runs, "steps": plan.steps, "seconds": plan.seconds, "memory": memory}


def _in_all(plans: Sequence[PartPlan]) -> dict[str, Any]:
    """Parts run one after the other: their runs, steps and seconds add up, and of memory the most counts."""
    costs = [_cost(one.plan) for one in plans]
    steps, seconds, memory = ([cost[name] for cost in costs] for name in ("steps", "seconds", "memory"))
    return {
        "runs": tuple(map(sum, zip(*(cost["runs"] for cost in costs), strict=True))),
        "steps": None if None in steps else sum(steps),
        "seconds": None if None in seconds else tuple(map(sum, zip(*seconds, strict=True))),
        "memory": None if None in memory else max(memory, default=0),
    }


def _cells(cost: dict[str, Any]) -> tuple[str, ...]:
    seconds, memory = cost["seconds"], cost["memory"]
    return (
        _range([f"{runs:,}" for runs in cost["runs"]]),
        UNKNOWN if cost["steps"] is None else f"{cost['steps']:,}",
        UNKNOWN if seconds is None else "about " + _range([in_words(s) for s in seconds]),
        UNKNOWN if memory is None else f"{memory / _GIGABYTE:.1f} GB",
    )


def _range(ends: Sequence[str]) -> str:
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"
