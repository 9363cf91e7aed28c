"""The group of commands: one experiment each."""

from __future__ import annotations

import click

from lightball.cli.theory.schedule import schedule
from lightball.cli.theory.slow import slow
from lightball.cli.theory.stability import stability
from lightball.cli.theory.svag import svag
from lightball.cli.theory.variance import variance
from lightball.cli.theory.weak import weak


@click.group(short_help="What the paper proves, measured in seconds.")
def theory() -> None:
    """What *The Marginal Value of Momentum for Small Learning Rate SGD* (arXiv:2307.15196) proves, measured.

    Each command runs one experiment in seconds, prints its table, and writes a page with its figures.
    """


theory.add_command(svag)
theory.add_command(schedule)
theory.add_command(weak)
theory.add_command(variance)
theory.add_command(stability)
theory.add_command(slow)
