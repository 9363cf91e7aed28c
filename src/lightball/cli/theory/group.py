"""The group of commands: one experiment each."""

from __future__ import annotations

import click


@click.group(short_help="What the paper proves, measured in seconds.")
def theory() -> None:
    """What *The Marginal Value of Momentum for Small Learning Rate SGD* (arXiv:2307.15196) proves, measured.

    Each command runs one experiment in seconds, prints its table, and writes a page with its figures.
    """
