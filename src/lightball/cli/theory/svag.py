"""``lightball theory svag``: curvature turned down at the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lightball.cli.lists import Floats, Ints
from lightball.cli.output import Output, device_of, output_options, simulation_options

if TYPE_CHECKING:
    from lightball.oracles import Noise
    from lightball.theory.svag import Memory


@click.command(short_help="SGD and SGDM with the curvature of a step turned down.")
@click.option("--lr", type=float, default=1.5, show_default=True, help="η at ℓ = 1.")
@click.option("--momentum", type=float, default=0.9, show_default=True, help="β of SGDM at ℓ = 1.")
@click.option(
    "--memory",
    type=click.Choice(["steps", "time"]),
    default="steps",
    show_default=True,
    help="What lasts as ℓ grows: β, or with 1 − β divided by ℓ the buffer's memory in time.",
)
@click.option("--ells", type=Ints(), default="1,2,4,8,16,32,64", show_default=True, help="ℓ, to simulate.")
@click.option("--spectrum", type=Floats(), default="1,0.1", show_default=True, help="Curvatures of the quadratic.")
@click.option("--variance", type=float, default=1.0, show_default=True, help="Of the gradient noise.")
@click.option(
    "--noise",
    type=click.Choice(["gaussian", "rademacher", "student-t"]),
    default="gaussian",
    show_default=True,
    help="Shape of the gradient noise.",
)
@click.option("--horizon", type=float, default=30.0, show_default=True, help="T; runs have ℓT/η steps.")
@click.option(
    "--trajectories",
    type=click.IntRange(min=0),
    default=10_000,
    show_default=True,
    help="Of each algorithm; 0 for exact moments alone.",
)
@click.option("--sde", is_flag=True, help="Also measure SGD, SVAG and SGDM against the two SDEs, some seconds more.")
@simulation_options
@output_options("lightball-theory")
def svag(
    output: Output,
    lr: float,
    momentum: float,
    memory: Memory,
    ells: tuple[int, ...],
    spectrum: tuple[float, ...],
    variance: float,
    noise: Noise,
    horizon: float,
    trajectories: int,
    sde: bool,
    seed: int,
    device: str,
) -> None:
    """Measure the curvature-induced term of a step and the gap between SGD and SGDM under SVAG(ℓ), against ℓ.

    \b
    Examples:
      lightball theory svag
      lightball theory svag --lr 0.5 --ells 1,4,16 --sde
    """
    from lightball.report.theory.svag import svag_page
    from lightball.theory.sde import SdeSettings, run_sde
    from lightball.theory.svag import SvagSettings, run_svag

    place = device_of(device)
    settings = SvagSettings(
        lr, momentum, memory, spectrum, variance, noise, ells, horizon, trajectories, seed=seed, device=place
    )
    with output.progress() as progress:
        result = run_svag(settings, progress)
        limits = run_sde(SdeSettings(seed=seed, device=place), progress) if sde else None
    output.give(
        "svag",
        svag_page(result, limits),
        {**result.to_json(), "sde": limits.to_json() if limits else None},
    )
