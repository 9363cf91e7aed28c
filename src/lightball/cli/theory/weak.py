"""``lightball theory weak``: how fast SGD with momentum becomes SGD as the learning rate falls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lightball.cli.lists import Floats
from lightball.cli.output import Output, device_of, output_options, simulation_options

if TYPE_CHECKING:
    from lightball.oracles import Noise
    from lightball.theory.weak import Loss


@click.command(short_help="Distance of SGD and SGDM on average, by learning rate; its order.")
@click.option(
    "--alpha",
    "alphas",
    type=Floats(),
    default="0,0.25,0.5,0.75,1",
    show_default=True,
    help="Momentum is 1 − β = ½ η^α, and β = 0.9 for α = 0.",
)
@click.option(
    "--loss",
    type=click.Choice(["quadratic", "log-cosh", "cosine"]),
    default="quadratic",
    show_default=True,
    help="Exact on the quadratic; ½x², log cosh x or 1 − cos x.",
)
@click.option(
    "--noise",
    type=click.Choice(["gaussian", "rademacher", "student-t"]),
    default="gaussian",
    show_default=True,
    help="Shape of the gradient noise.",
)
@click.option("--etas", type=Floats(), help="Learning rates.  [default: 2⁻⁴ to 2⁻¹², simulated 2⁻⁶ to 2⁻¹⁰]")
@click.option(
    "--trajectories",
    type=click.IntRange(min=0),
    help="Of each simulated algorithm; 0 for exact errors alone.  [default: 1000, or 20000 without exact errors]",
)
@simulation_options
@output_options("lightball-theory")
def weak(
    output: Output,
    alphas: tuple[float, ...],
    loss: Loss,
    noise: Noise,
    etas: tuple[float, ...] | None,
    trajectories: int | None,
    seed: int,
    device: str,
) -> None:
    """Measure how fast SGD with momentum becomes SGD as the learning rate η falls, beside the proven (1 − α)/2.

    \b
    Examples:
      lightball theory weak
      lightball theory weak --alpha 0,0.5,1 --loss log-cosh --noise student-t
    """
    from lightball.report.theory.weak import weak_page
    from lightball.theory.weak import WeakSettings, run_weak

    settings = WeakSettings(
        tuple(dict.fromkeys(alphas)), loss, noise, etas, trajectories, seed=seed, device=device_of(device)
    )
    with output.progress() as progress:
        result = run_weak(settings, progress)
    output.give("weak", weak_page(result), result.to_json())
