"""``lightball theory slow``: the drift to flat minimizers, of SGD, SGDM and the slow SDE."""

from __future__ import annotations

import click

from lightball.cli.lists import Floats
from lightball.cli.output import Output, device_of, output_options, simulation_options


@click.command(short_help="The drift to flat minimizers over 1/η² steps.")
@click.option(
    "--model",
    type=click.Choice(["hyperbola", "diagonal-net", "matrix"]),
    default="hyperbola",
    show_default=True,
    help="½(xy − 1)², a diagonal linear network, or matrix completion; with label noise.",
)
@click.option("--etas", type=Floats(), help="Learning rates.  [default: three that suit the model]")
@click.option("--momentum", type=float, default=0.9, show_default=True, help="β of SGDM.")
@click.option("--slow-time", type=float, help="η² times the number of steps.  [default: suits the model]")
@click.option(
    "--trajectories",
    type=int,
    help="Of SGD and of SGDM, at each learning rate.  [default: 4000 on the hyperbola, else 1000]",
)
@simulation_options
@output_options("lightball-theory")
def slow(
    output: Output,
    model: str,
    etas: tuple[float, ...] | None,
    momentum: float,
    slow_time: float | None,
    trajectories: int | None,
    seed: int,
    device: str,
) -> None:
    """Follow SGD and SGDM along the minimizers of a loss to flat ones, beside the slow SDE, for t = η²k.

    \b
    Examples:
      lightball theory slow
      lightball theory slow --model matrix --etas 0.2,0.1,0.05
    """
    from lightball.report.theory.slow import slow_page
    from lightball.theory.slow import SlowSettings, run_slow

    settings = SlowSettings(model, etas, momentum, slow_time, trajectories, seed, device_of(device))
    with output.progress() as progress:
        result = run_slow(settings, observer=progress)
    output.give("slow", slow_page(result), result.to_json())
