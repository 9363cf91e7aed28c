"""``lightball runs``: how far a study is, and what went wrong in it."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lightball.studies.store import Counts, Survey

WIDTH = 80
_MOST = 10  # damaged files and errors that are shown; --json has all
_COLUMNS = ("planned", "finished", "diverged", "crashed", "missing", "in flight")


@click.command(short_help="Say how far a study is, and what went wrong in it.")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def runs(folder: str, as_json: bool) -> None:
    """Say how many runs of the study in DIR are planned, finished, diverged, crashed and missing.

    Nothing in DIR is moved.

    \b
    Example:
      lightball runs lightball-runs/digits-315fddac
    """
    from lightball.studies.store import survey

    found = survey(folder)
    click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False) if as_json else _as_text(found))


def _as_text(survey: Survey) -> str:
    blocks = [[f"runs in {survey.folder}"], _table(survey.counts), _flight(survey), _damage(survey), _errors(survey)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _table(counts: tuple[Counts, ...]) -> list[str]:
    if not counts:
        return ["nothing is planned or finished"]
    lines = [f"{'phase':<8} {'batch':>8} " + " ".join(f"{name:>9}" for name in _COLUMNS)]
    rows = [(c.planned, c.finished, c.failed, c.crashed, c.missing, c.in_flight) for c in counts]
    heads = [(str(c.phase), str(c.batch_size)) for c in counts]
    if len(rows) > 1:
        heads.append(("all", ""))
        rows.append(tuple(map(sum, zip(*rows, strict=True))))  # type: ignore[arg-type]
    for (phase, size), row in zip(heads, rows, strict=True):
        lines.append(f"{phase:<8} {size:>8} " + " ".join(f"{number:>9,}" for number in row))
    return lines


def _flight(survey: Survey) -> list[str]:
    if not survey.in_flight:
        return []
    by_process = Counter((claim.host, claim.pid) for claim in survey.in_flight)
    lines = ["in flight, among the missing:"]
    for (host, pid), chunks in by_process.items():
        since = min((c.since or "" for c in survey.in_flight if (c.host, c.pid) == (host, pid)), default="")
        who = f"process {pid} on {host}" if host else "a process that is only starting"
        lines.append(_entry(f"{who}: {chunks} chunk{'s' if chunks > 1 else ''}{f', since {since}' if since else ''}"))
    return lines


def _damage(survey: Survey) -> list[str]:
    return _listed("damaged, not believed:", [f"{damage.name}: {damage.reason}" for damage in survey.damaged])


def _errors(survey: Survey) -> list[str]:
    return _listed("errors of crashed runs:", [f"{count:,} × {line}" for line, count in survey.errors])


def _listed(head: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = [f"  and {len(entries) - _MOST:,} more: see --json"] if len(entries) > _MOST else []
    return [head, *map(_entry, entries[:_MOST]), *more]


def _entry(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
