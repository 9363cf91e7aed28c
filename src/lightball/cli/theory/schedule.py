"""``lightball theory schedule``: which SGD matches SGD with momentum whose rate and momentum change."""

from __future__ import annotations

import click

from lightball.cli.lists import Floats
from lightball.cli.output import Output, device_of, output_options, simulation_options


@click.command(short_help="The SGD that matches SGDM with warm-up, decay and changing β.")
@click.option(
    "--schedule",
    default="warmup:0.1+step:0.5,0.75:0.1",
    show_default=True,
    help="Of the effective learning rate: constant, cosine, linear, step:0.5,0.75:0.1, after warmup:0.1+.",
)
@click.option(
    "--momentum",
    default="restarts:20",
    show_default=True,
    help="Of β: constant:0.9, restarts:20, cycle:20:0.5,0.9, linear:0.5,0.95.",
)
@click.option("--etas", type=Floats(), help="Largest effective learning rates of the runs.  [default: 2⁻⁷ to 2⁻¹²]")
@click.option(
    "--trajectories",
    type=click.IntRange(min=0),
    default=4_000,
    show_default=True,
    help="Of each algorithm, at the four largest rates; 0 for exact errors alone.",
)
@simulation_options
@output_options("lightball-theory")
def schedule(
    output: Output,
    schedule: str,
    momentum: str,
    etas: tuple[float, ...] | None,
    trajectories: int,
    seed: int,
    device: str,
) -> None:
    """Compare SGD with momentum with SGD by the averaged schedule, and by the rate γ/(1 − β) of each step.

    Exact moments on a quadratic, with a simulation beside them. Momentum "restarts:20" is Nesterov's j/(j + 3), begun
    again every 20 steps.

    \b
    Examples:
      lightball theory schedule
      lightball theory schedule --schedule warmup:0.1+cosine --momentum linear:0.5,0.95
    """
    from lightball.report.theory.schedule import schedule_page
    from lightball.theory.schedule import RATES, ScheduleSettings, run_schedule

    settings = ScheduleSettings(
        schedule, momentum, etas or RATES, trajectories=trajectories, seed=seed, device=device_of(device)
    )
    with output.progress() as progress:
        result = run_schedule(settings, progress)
    output.give("schedule", schedule_page(result), result.to_json())
