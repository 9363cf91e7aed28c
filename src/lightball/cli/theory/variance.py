"""``lightball theory variance``: of one update, and of the displacement over many."""

from __future__ import annotations

import click

from lightball.cli.lists import Floats
from lightball.cli.output import Output, device_of, output_options, simulation_options


@click.command(short_help="Variance of one update and of a path of many, SGDM over SGD.")
@click.option(
    "--momentum", "momenta", type=Floats(), default="0.5,0.9,0.99", show_default=True, help="Momenta β of SGDM."
)
@click.option("--steps", "num_steps", type=int, default=10_000, show_default=True, help="Longest path K.")
@click.option("--trajectories", type=int, default=4_000, show_default=True, help="Of each algorithm.")
@simulation_options
@output_options("lightball-theory")
def variance(
    output: Output, momenta: tuple[float, ...], num_steps: int, trajectories: int, seed: int, device: str
) -> None:
    """Compare the variance of SGD with and without momentum: of one update, and of the displacement over K steps.

    \b
    Example:
      lightball theory variance --momentum 0.9 --steps 1000
    """
    from lightball.report.theory.variance import variance_page
    from lightball.theory.variance import VarianceSettings, run_variance

    settings = VarianceSettings(momenta, num_steps, trajectories, seed, device_of(device))
    with output.progress() as progress:
        result = run_variance(settings, progress)
    output.give("variance", variance_page(result), result.to_json())
