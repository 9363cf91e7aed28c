"""``lightball theory stability``: the largest learning rate that momentum allows."""

from __future__ import annotations

import click

from lightball.cli.lists import Floats
from lightball.cli.output import Output, device_of, output_options, simulation_options


@click.command(short_help="Largest stable learning rate by momentum.")
@click.option(
    "--momentum",
    "momenta",
    type=Floats(),
    default="0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95",
    show_default=True,
    help="Momenta β.",
)
@click.option("--curvature", type=float, default=1.0, show_default=True, help="Of the quadratic, h.")
@click.option(
    "--steps", "num_steps", type=int, default=1_000, show_default=True, help="Of a probe; more for a long memory."
)
@click.option("--trajectories", "replicas", type=int, default=256, show_default=True, help="Of each probe.")
@simulation_options
@output_options("lightball-theory")
def stability(
    output: Output,
    momenta: tuple[float, ...],
    curvature: float,
    num_steps: int,
    replicas: int,
    seed: int,
    device: str,
) -> None:
    """Find the largest stable learning rate by momentum: in closed form, and where a simulation begins to grow.

    \b
    Example:
      lightball theory stability --momentum 0,0.9 --curvature 10
    """
    from lightball.report.theory.stability import stability_page
    from lightball.theory.stability import StabilitySettings, run_stability

    settings = StabilitySettings(momenta, curvature, num_steps, replicas, seed=seed, device=device_of(device))
    with output.progress() as progress:
        result = run_stability(settings, progress)
    output.give("stability", stability_page(result), result.to_json())
