"""Options that commands share, and how a result becomes text, JSON, a page and its figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from lightball.cli.progress import Progress
    from lightball.report.page import Page

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Output:
    """Where a result goes, as asked on the command line; see :func:`output_options`."""

    out: Path
    page: bool
    json: bool
    quiet: bool

    def progress(self) -> Progress:
        """A bar on standard error where somebody can see it."""
        from lightball.cli.progress import Progress

        return Progress(enabled=not (self.json or self.quiet))

    def check(self) -> None:
        """Refuse a folder that cannot be written, before long work.

        Raises:
            InputError: it is a file, or lies in a folder that is none or read-only.
        """
        from lightball.errors import InputError

        there = next(folder for folder in (self.out, *self.out.absolute().parents) if folder.exists())
        if self.page and not (there.is_dir() and os.access(there, os.W_OK)):
            raise InputError(f"--out is {str(self.out)!r}, but {str(there)!r} is no folder that can be written to")

    def give(self, name: str, page: Page, result: Mapping[str, Any], card: Page | None = None) -> None:
        """Print the page as text, or the result as JSON; write ``OUT/NAME.html`` and each figure as PNG and SVG.

        Where a ``card`` is given it is printed instead of the page.
        """
        from lightball.report.plain import plain_text
        from lightball.report.writing import write_figures, write_page

        path = self.out / f"{name}.html"
        if self.page:
            write_page(page, path)
            write_figures(page, self.out)
        if self.json:
            # The result comes first and whole: a number that is not finite would be a mistake, and ends here.
            value = {**result, "answer": page.answer, "page": str(path) if self.page else None}
            click.echo(dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
        elif self.quiet:
            click.echo(page.answer)
        else:
            click.echo(plain_text(card or page))
            if self.page:
                click.echo(f"\npage in {path}, its figures beside it")


def output_options(folder: str) -> Callable[[Command], Command]:
    """``--out --page/--no-page --json --quiet``, given to the command as ``output: Output``; ``folder`` by default."""
    options = [
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=Path(folder),
            show_default=True,
            help="Folder of the page and its figures.",
        ),
        click.option("--page/--no-page", default=True, help="Write the page and its figures.  [default: page]"),
        click.option("--json", is_flag=True, help="Print one JSON object."),
        click.option("--quiet", is_flag=True, help="Print the answer only."),
    ]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_output(out: Path, page: bool, json: bool, quiet: bool, **others: Any) -> Any:
            return command(output=Output(out, page, json, quiet), **others)

        decorated: Any = with_output
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def simulation_options(command: Command) -> Command:
    """``--seed --device``, given to the command by name; the device is as :func:`choose_device` takes it."""
    command = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")(command)
    return click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is random."
    )(command)


def device_of(name: str) -> str:
    """The device that is meant.

    Raises:
        InputError: there is no such device.
    """
    from lightball.studies.engines.devices import choose_device

    return choose_device(name)
