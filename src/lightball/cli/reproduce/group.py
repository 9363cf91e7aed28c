"""The group of commands: one experiment each."""

from __future__ import annotations

import click

from lightball.cli.reproduce.cifar import cifar
from lightball.cli.reproduce.finetune import finetune
from lightball.cli.reproduce.imagenet import imagenet


@click.group(short_help="The paper's experiments on real models and data.")
def reproduce() -> None:
    """The experiments of *The Marginal Value of Momentum for Small Learning Rate SGD* (arXiv:2307.15196), as presets.

    Each command compares SGD and SGDM as pairs, tuned and confirmed, from a smoke test to the paper's scale. It prints
    what it will cost before it starts, and goes on from what is finished in --out.
    """


reproduce.add_command(finetune)
reproduce.add_command(cifar)
reproduce.add_command(imagenet)
