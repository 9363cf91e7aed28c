"""``lightball reproduce cifar``: ResNet-32 on CIFAR-10 under SVAG."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from lightball.cli.lists import Floats, Ints
from lightball.cli.reproduce.options import Common, common_options
from lightball.cli.reproduce.running import Experiment, carry_out


@click.command(short_help="ResNet-32 on CIFAR-10 under SVAG.")
@click.option("--ells", type=Ints(), help="ℓ of SVAG, 1 among them.  [default: 1,2,4,8; gpu: what fits]")
@click.option("--lr", type=Floats(), help="Rates to try for SGDM; SGD takes the one selected.")
@click.option(
    "--rate-convention",
    type=click.Choice(["torch", "effective"]),
    help="What --lr means: γ of the sum form, as in torch, or η = γ/(1 − β).  [default: torch]",
)
@click.option("--epochs", type=int, help="Those of ℓ = 1.  [default: 160; gpu: what fits]")
@click.option("--batch-size", type=int, help="[default: 512; cpu: 128; smoke: 16]")
@click.option("--momentum", type=float, help="β of SGDM.  [default: 0.9]")
@click.option("--seeds", type=int, help="Pairs at each ℓ.  [default: 6]")
@click.option("--tuning-seeds", type=int, help="Further ones, on which SGDM's rate is chosen.  [default: 1]")
@click.option("--max-extensions", type=int, help="How often each end of the grid may grow.  [default: 0; paper: 2]")
@click.option("--weight-decay", type=float, help="[default: 0.0005]")
@click.option("--schedule", help="Of the learning rate.  [default: step:0.5,0.75:0.1]")
@click.option(
    "--batch-norm",
    type=click.Choice(["each", "once", "frozen"]),
    help="What updates BatchNorm's running statistics under SVAG.  [default: each]",
)
@click.option("--affine/--no-affine", default=None, help="Scale and shift of BatchNorm.  [default: affine]")
@click.option(
    "--frozen-head/--trained-head", default=None, help="The last layer stays as drawn.  [default: trained-head]"
)
@click.option("--depth", type=int, help="Of the ResNet, 6n + 2.  [default: 32; cpu and smoke: 8]")
@click.option("--num-train", type=int, help="Training images.  [default: all but those for validation]")
@click.option(
    "--num-validation", type=int, help="Training images held out, by which the rate is chosen.  [default: 5000]"
)
@click.option("--num-test", type=int, help="Test images.  [default: all]")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Mixed precision.  [default: bfloat16 on a GPU, else float32]",
)
@click.option("--compile/--no-compile", default=None, help="torch.compile the step.  [default: on a GPU]")
@click.option("--margin-accuracy", type=float, help="Difference in accuracy that does not matter.  [default: 0.005]")
@common_options("lightball-cifar")
def cifar(common: Common, **options: Any) -> int:
    """Tune SGDM on CIFAR-10, then compare SGD and SGDM at that rate under SVAG(ℓ), for each ℓ.

    With growing ℓ the curvature of a step is turned down at the same noise, and the two should come together. At
    --scale gpu, ℓ and epochs are chosen from a measured step so that all fits 25 minutes.

    \b
    Examples:
      lightball reproduce cifar --data ./data --scale smoke
      lightball reproduce cifar --data ./data --scale paper --plan
      lightball reproduce cifar --data ./data --scale gpu --ells 1,4
      lightball reproduce cifar --data ./data --time-budget 30
    """
    from lightball.report.reproduce.cifar import cifar_page
    from lightball.reproduce.cifar import PRESETS, decide, plan_cifar, read_cifar, run_cifar
    from lightball.reproduce.scales import preset

    asked = preset(PRESETS, common.scale, data=common.data, **options)
    common.output.check()
    settings = decide(asked, out=common.output.out, device=common.device, workers=common.workers, keep=not common.plan)
    epochs = f"{settings.epochs} epoch{'' if settings.epochs == 1 else 's'}"
    return carry_out(
        Experiment(
            name="cifar",
            title=f"CIFAR-10, ResNet-{settings.depth} under SVAG, {epochs} a run: SGD against SGDM",
            plan=partial(plan_cifar, settings),
            run=partial(run_cifar, settings),
            read=partial(read_cifar, settings),
            page=cifar_page,
        ),
        common,
    )
