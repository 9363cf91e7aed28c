"""``lightball audit``: what an optimizer really does."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
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
    checkpoint with an optimizer's state, of which nothing is executed. Of the scheduler, only whether it moves the
    momentum is looked at. With --json, what your file prints goes to standard error.

    \b
    Examples:
      lightball audit my_train.py:make_optimizer
      lightball audit checkpoint.pt --json
    """
    from lightball.optim.auditing import audit_json, audit_text

    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        found = _audited(target)
    click.echo(json.dumps(audit_json(found), indent=2, ensure_ascii=False) if as_json else audit_text(found))


def _audited(target: str) -> tuple[Audited, ...]:
    from lightball.optim.auditing import audit_checkpoint
    from lightball.user_files import made_by, split

    own = split(target)
    if own is not None:
        where = f"{own[0].name}:{own[1]}"
        return made_by(*own, lambda made: _audited_with_scheduler(made, where), EXAMPLE, "torch.optim.Optimizer")
    if target.endswith(".py"):
        raise InputError(f"{target!r} is a Python file: name the function that makes the optimizer, as {EXAMPLE}")
    module, colon, function = target.rpartition(":")
    if colon and not Path(target).exists() and Path(f"{module}.py").is_file():
        raise InputError(f"there is no file {target!r}: did you mean {module}.py:{function or 'make_optimizer'}?")
    return audit_checkpoint(target)


def _audited_with_scheduler(made: object, where: str) -> tuple[Audited, ...]:
    from lightball.optim.auditing import audit as audit_optimizer
    from lightball.optim.auditing.contradictions import momentum_now
    from lightball.optim.wrappers import unwrapped

    optimizer, *others = made if isinstance(made, (tuple, list)) and made else [made]
    _require_one_optimizer(made, optimizer, others, where)
    found = audit_optimizer(optimizer)
    if not any(getattr(other, "cycle_momentum", False) for other in others):  # of OneCycleLR and CyclicLR
        return found
    notes = [momentum_now(group) for group in unwrapped(optimizer).param_groups]  # type: ignore[attr-defined]
    return tuple(
        one if note in one.notes else replace(one, notes=(note, *one.notes))
        for one, note in zip(found, notes, strict=True)
    )


def _require_one_optimizer(made: object, optimizer: object, others: list[object], where: str) -> None:
    from torch.optim import Optimizer

    from lightball.optim.wrappers import unwrapped

    inner = unwrapped(optimizer)
    if not isinstance(inner, Optimizer):
        what = "None" if made is None else f"a {type(made).__name__}"
        if isinstance(made, (tuple, list)):
            what += f" of {', '.join(type(each).__name__ for each in made)}" if made else " of nothing"
        raise InputError(f"{where} returned {what}; return the optimizer, or (optimizer, scheduler)")
    # a scheduler holds the optimizer itself
    more = {id(each) for each in map(unwrapped, others) if isinstance(each, Optimizer) and each is not inner}
    if more:
        count = {1: "two", 2: "three"}.get(len(more), str(len(more) + 1))
        raise InputError(f"{where} returned {count} optimizers; return one, or (optimizer, scheduler)")
