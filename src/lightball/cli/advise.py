"""``lightball advise``: what a run would lose without momentum, from probes of its model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lightball.cli.output import Output, device_of, output_options, simulation_options
from lightball.errors import InputError

if TYPE_CHECKING:
    from lightball.cli.progress import Progress
    from lightball.rules import Setting
    from lightball.workloads import Workload

_count = click.IntRange(min=1)


@click.command(short_help="Forecast what a run would lose without momentum.")
@click.argument("task")
@click.option("--lr", type=float, required=True, help="Your optimizer's learning rate.")
@click.option("--momentum", type=float, default=0.9, show_default=True)
@click.option("--batch-size", type=_count, required=True, help="Examples of a step.")
@click.option("--from", "convention", default="torch", show_default=True, help="Convention of --lr, as in convert.")
@click.option("--steps", type=_count, default=100, show_default=True, help="Over which the value is forecast.")
@click.option("--epochs", type=_count, default=24, show_default=True, help="Of a run where both rules are tuned.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Weights to probe, a safetensors file.  [default: train, and probe three phases]",
)
@click.option("--sampling", type=click.Choice(["shuffle", "iid"]), default="shuffle", show_default=True)
@click.option(
    "--curvature",
    type=click.Choice(["hessian", "ggn"]),
    default="hessian",
    show_default=True,
    help="ggn: its positive part, Gauss–Newton.",
)
@click.option("--margin", type=float, help="Difference in loss that does not matter.  [default: 1 % of its decrease]")
@click.option("--verify", is_flag=True, help="Train with and without momentum too, and compare with the forecast.")
@simulation_options
@output_options("lightball-advice")
def advise(
    output: Output,
    task: str,
    lr: float,
    momentum: float,
    batch_size: int,
    convention: str,
    steps: int,
    epochs: int,
    checkpoint: Path | None,
    sampling: Literal["shuffle", "iid"],
    curvature: Literal["hessian", "ggn"],
    margin: float | None,
    verify: bool,
    seed: int,
    device: str,
) -> None:
    """Tell what momentum is worth to a run of TASK at your setting, and when both rules are tuned.

    TASK is digits, digits-conv, or your own file.py:function that returns a lightball.Workload. Noise and curvature are
    measured at the start, in the middle and at the end of a short training, or at your checkpoint, and the losses of
    SGD with and without momentum are forecast from them.

    \b
    Examples:
      lightball advise digits --lr 0.1 --momentum 0.9 --batch-size 64
      lightball advise my_task.py:make_task --checkpoint weights.safetensors --lr 0.01 --batch-size 256
    """
    setting = _setting(convention, lr, momentum)
    if margin is not None and not 0 < margin < math.inf:
        raise InputError(f"margin is {margin:g}, but must be a finite difference in loss above 0")
    where = device_of(device)
    output.check()
    from lightball.forecast.advising import advise as advice_on
    from lightball.forecast.phases import Effort, phases_of
    from lightball.report.advice.card import card
    from lightball.report.advice.page import advice_page
    from lightball.studies.verification import verify as verified

    workload = _loaded(task, verify)
    check = failure = None
    with output.progress() as progress:
        phases = phases_of(
            workload,
            effective_lr=setting.effective_lr,
            momentum=momentum,
            batch_size=batch_size,
            epochs=epochs,
            num_steps=steps,
            checkpoint=checkpoint,
            seed=seed,
            device=where,
            effort=Effort(curvature=curvature, keep_weights=verify),
            progress=_bar_of(progress),
        )
        advice = advice_on(
            phases, setting, batch_size, num_steps=steps, epochs=epochs, sampling=sampling, margin=margin
        )
        if verify:
            try:
                check = verified(workload, advice, task=task, checkpoint=checkpoint, device=where, observer=progress)
            except InputError as error:
                failure = error  # the advice is told all the same
    found = advice.to_json() | ({} if check is None else {"verification": check.to_json()})
    page = advice_page(workload.name, advice, check, (("seed", str(seed)), ("device", where)))
    output.give("advise", page, found, card(workload.name, advice, check))
    if failure is not None:
        raise InputError(f"the advice could not be verified: {failure}")


def _loaded(task: str, verify: bool) -> Workload:
    """The task; one that is to be verified must be trainable many at once.

    Raises:
        InputError: as :func:`lightball.workloads.load`.
    """
    from lightball.workloads import load

    workload = load(task, together=False)
    if verify:
        try:
            load(task)
        except InputError as error:
            reason = str(error).removesuffix("; or train each model by itself: --engine process")
            raise InputError(f"--verify trains many models at once, and this one cannot be: {reason}") from error
    return workload


def _setting(convention: str, lr: float, momentum: float) -> Setting:
    """The user's optimizer, which must have momentum to drop.

    Raises:
        InputError: the rate is not above 0, the momentum not between 0 and 1, or the convention is unknown.
    """
    from lightball.rules import Setting

    if not 0 < lr < math.inf:
        raise InputError(f"lr is {lr:g}, but must be a finite number above 0")
    if momentum == 0:
        raise InputError("momentum is 0, but must be above 0 and below 1: without momentum there is none to drop")
    return Setting(convention, lr, momentum)


def _bar_of(progress: Progress) -> Callable[[str, int, int], None]:
    """A bar for whatever is told of, as (what, done, of how many)."""
    told: tuple[str, int] = ("", 0)

    def tell(what: str, done: int, total: int) -> None:
        nonlocal told
        if what != told[0]:
            progress.begin(what, total)
            told = (what, 0)
        progress.advance(done - told[1])
        told = (what, done)

    return tell
