"""How the command of an experiment goes: the plan, the runs, and what was found, be it half."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import click

if TYPE_CHECKING:
    from lightball.cli.reproduce.options import Common
    from lightball.report.page import Page
    from lightball.reproduce.parts import PartPlan


class Found(Protocol):
    """What an experiment found."""

    @property
    def finished(self) -> bool:
        """Whether nothing is missing."""
        ...

    def as_json(self) -> dict[str, Any]:
        """All of it as plain numbers."""
        ...


Result = TypeVar("Result", bound=Found)


@dataclass(frozen=True)
class Experiment(Generic[Result]):
    """What a command carries out.

    Args:
        name: of the page and the JSON file.
        title: what the plan is about.
        plan: ``plan(out=, device=, workers=)``, what the parts will cost.
        run: ``run(out=, device=, workers=, deadline=, observer=)``, as far as time allows.
        read: what is finished in a folder; no run is changed.
        page: the page of a result, finished or not.
    """

    name: str
    title: str
    plan: Callable[..., Sequence[PartPlan]]
    run: Callable[..., Result]
    read: Callable[[Path], Result]
    page: Callable[[Result], Page]


def carry_out(experiment: Experiment[Result], common: Common) -> int:
    """Print the plan, run, print the result and write its files; the exit code.

    When the time budget is spent, or somebody presses Ctrl-C, what is finished is shown, and the command that goes on.
    """
    from lightball.cli.interrupts import exit_code

    start, output = time.time(), common.output
    output.check()
    how = {"out": output.out, "device": common.device, "workers": common.workers}
    with output.progress() as progress:
        try:
            plans = experiment.plan(**how)
            _show_plan(experiment, plans, common)
            if common.plan:
                return 0
            deadline = start + 60 * common.time_budget if common.time_budget else None
            found = experiment.run(**how, deadline=deadline, observer=progress)
        except KeyboardInterrupt as interrupt:
            progress.stop()
            if common.plan:
                raise
            _show(experiment, experiment.read(output.out), common)
            _go_on("interrupted")
            return exit_code(interrupt)
    _show(experiment, found, common)
    if not found.finished:
        _go_on(
            "not finished" if common.time_budget is None else f"the time budget of {common.time_budget:g} min is spent"
        )
    return 0


def _show_plan(experiment: Experiment[Result], plans: Sequence[PartPlan], common: Common) -> None:
    from lightball.report.reproduce.plan import plan_json, plan_text

    if common.plan and common.output.json:
        click.echo(dumps(plan_json(plans), indent=2))
    elif common.plan or not (common.output.json or common.output.quiet):
        click.echo(plan_text(experiment.title, plans, common.output.out))


def _show(experiment: Experiment[Result], found: Result, common: Common) -> None:
    from lightball.studies.store.disk import write

    output, page = common.output, experiment.page(found)
    noted = replace(page, lead=(page.notice, *page.lead)) if page.notice else None
    output.give(experiment.name, page, found.as_json(), noted)
    if output.page:
        text = dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write(output.out / f"{experiment.name}.json", f"{text}\n".encode())


def _go_on(why: str) -> None:
    command = shlex.join(["lightball", *sys.argv[1:]])
    click.echo(f"lightball: {why}; what is finished is kept; go on with: {command}", err=True)
