"""``lightball audit``: what an optimizer really does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from lightball.errors import InputError

if TYPE_CHECKING:
    from lightball.optim import Audited

EXAMPLE = "my_train.py:make_optimizer"


@click.command(short_help="Find out what an optimizer really does.")
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, an object per parameter group.")
def audit(target: str, as_json: bool) -> None:
    """Find out by experiments what an optimizer really does: its effective rate, its momentum, its weight decay.

    TARGET is your own file.py:function that returns a torch optimizer, or (optimizer, scheduler), and is run; or a
    checkpoint with an optimizer's state, of which nothing is executed.

    \b
    Examples:
      lightball audit my_train.py:make_optimizer
      lightball audit checkpoint.pt --json
    """
    from lightball.optim.auditing import audit_json, audit_text

    found = _audited(target)
    click.echo(json.dumps(audit_json(found), indent=2, ensure_ascii=False) if as_json else audit_text(found))


def _audited(target: str) -> tuple[Audited, ...]:
    from lightball.optim.auditing import audit as audit_optimizer
    from lightball.optim.auditing import audit_checkpoint
    from lightball.user_files import made_by, split

    own = split(target)
    if own is not None:
        return made_by(*own, lambda made: audit_optimizer(_optimizer(made)), EXAMPLE, "torch.optim.Optimizer")
    if target.endswith(".py"):
        raise InputError(f"{target!r} is a Python file: name the function that makes the optimizer, as {EXAMPLE}")
    return audit_checkpoint(target)


def _optimizer(made: object) -> object:
    """The optimizer, without the scheduler that may come with it."""
    return made[0] if isinstance(made, (tuple, list)) and made else made
