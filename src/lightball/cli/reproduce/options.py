"""What all experiments are asked: at which scale, with which data, where, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lightball.cli.output import Output, output_options

if TYPE_CHECKING:
    from lightball.reproduce.scales import Scale

Command = TypeVar("Command", bound=Callable[..., Any])

SCALES = ("smoke", "cpu", "gpu", "paper")


@dataclass(frozen=True)
class Common:
    """The options of every experiment; see :func:`common_options`. ``time_budget`` is in minutes."""

    scale: Scale
    data: Path | None
    plan: bool
    time_budget: float | None
    device: str
    workers: int | None
    output: Output


def common_options(folder: str) -> Callable[[Command], Command]:
    """The options of :class:`Common`, given to the command as ``common``; results are in ``folder`` by default."""
    options = [
        click.option(
            "--scale",
            type=click.Choice(SCALES),
            default="cpu",
            show_default=True,
            help="smoke: seconds. cpu: minutes, says something. gpu: one GPU, up to an hour. paper: as in the paper. "
            "Other options win over it.",
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path),
            help="Folder of the data sets.  [default: what LIGHTBALL_DATA names, or else the Hugging Face hub]",
        ),
        click.option("--plan", is_flag=True, help="Print runs, steps, time and memory, from measured steps, and stop."),
        click.option(
            "--time-budget",
            type=click.FloatRange(min=0, min_open=True),
            metavar="MINUTES",
            help="Stop cleanly then; the same command goes on from --out.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
        click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core; one on a GPU]"),
    ]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_common(
            scale: Scale,
            data: Path | None,
            plan: bool,
            time_budget: float | None,
            device: str,
            workers: int | None,
            output: Output,
            **others: Any,
        ) -> Any:
            common = Common(scale, data, plan, time_budget, device, workers, output)
            return command(common=common, **others)

        decorated: Any = output_options(folder)(with_common)
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate
