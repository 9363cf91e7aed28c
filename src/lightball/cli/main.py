"""The ``lightball`` command: its subcommands, and how errors and Ctrl-C end it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from lightball.cli.advise import advise
from lightball.cli.audit import audit
from lightball.cli.compare import compare
from lightball.cli.convert import convert
from lightball.cli.interrupts import INTERRUPTED, TERMINATED, exit_code, sigterm_interrupts
from lightball.cli.report import report
from lightball.cli.reproduce.group import reproduce
from lightball.cli.runs import runs
from lightball.cli.theory.group import theory
from lightball.errors import InputError
from lightball.version import __version__

BAD_INPUT = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lightball")
def lightball() -> None:
    """Does your training run need momentum? Measure it, test it, and drop it when it doesn't.

    \b
    Examples:
      lightball compare digits
      lightball advise digits --lr 0.1 --momentum 0.9 --batch-size 64
      lightball audit my_train.py:make_optimizer
      lightball convert --lr 0.1 --momentum 0.9 --from torch --to sgd
      lightball report lightball-runs/digits-315fddac
      lightball reproduce finetune --plan
      lightball runs lightball-runs/digits-315fddac
      lightball theory weak
    """


lightball.add_command(advise)
lightball.add_command(audit)
lightball.add_command(compare)
lightball.add_command(convert)
lightball.add_command(report)
lightball.add_command(reproduce)
lightball.add_command(runs)
lightball.add_command(theory)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad input is one line on standard error and exit code 2, Ctrl-C is 130, SIGTERM 143."""
    try:
        with sigterm_interrupts():
            status = lightball.main(args=arguments, prog_name="lightball", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return BAD_INPUT
    except click.ClickException as error:
        return _refuse(error.format_message())
    except InputError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, click.Abort) as interrupt:
        click.echo("lightball: interrupted", err=True)
        return exit_code(interrupt.__context__ or interrupt)
    return status if isinstance(status, int) else 0


def _refuse(message: str) -> int:
    click.echo(f"lightball: {' '.join(message.split())}", err=True)
    return BAD_INPUT


def run() -> NoReturn:
    """The program: :func:`main`, then its exit code."""
    status = main()
    if status in (INTERRUPTED, TERMINATED):
        # At once: what an interpreter with torch does at its end takes a second. Workers have been ended before.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
