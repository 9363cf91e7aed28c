"""``lightball reproduce imagenet``: ResNet-50 at small and large batch sizes."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from lightball.cli.lists import Floats, Ints
from lightball.cli.reproduce.options import Common, common_options
from lightball.cli.reproduce.running import Experiment, carry_out


@click.command(short_help="ResNet-50 on ImageNet, from small to large batches.")
@click.option("--batch-sizes", type=Ints(), help="[default: 64,256,1024,4096,16384]")
@click.option("--lr", type=Floats(), help="γ of the sum form to try for SGDM at B = 256; γ B/256 at another B.")
@click.option("--momentum", type=float, help="β of SGDM.  [default: 0.9]")
@click.option("--epochs", type=int, help="[default: 90; gpu and cpu: 18; smoke: 2]")
@click.option("--schedule", help="Of the learning rate.  [default: 5 of 90 epochs warm-up, ÷ 10 at 30, 60 and 80]")
@click.option("--seeds", type=int, help="Pairs at each batch size.  [default: 6]")
@click.option("--tuning-seeds", type=int, help="Further ones, on which SGDM's rate is chosen.  [default: 1]")
@click.option("--max-extensions", type=int, help="How often each end of the grid may grow.  [default: 0; paper: 2]")
@click.option("--weight-decay", type=float, help="None on biases and BatchNorm.  [default: 0.0001]")
@click.option(
    "--micro-batch",
    type=int,
    help="Images that are computed at once, in all processes; larger batches are accumulated.  [default: 256]",
)
@click.option("--bn-group", type=int, help="Images that BatchNorm normalises together.  [default: 32]")
@click.option(
    "--depth", type=click.Choice(["18", "50"]), help="Of the ResNet.  [default: 50 at the paper's scale, else 18]"
)
@click.option("--size", type=int, help="Rows and columns of an image.  [default: 224; gpu: 112; cpu: 64; smoke: 32]")
@click.option(
    "--num-validation", type=int, help="Training images held out to choose rates by.  [default: 10,000 at most]"
)
@click.option("--measured", type=int, help="Training images on which the training loss is measured.  [default: 50,000]")
@click.option("--max-broken", type=int, help="Images that may fail to decode.  [default: 100]")
@click.option("--decoders", type=int, help="Processes that decode images.  [default: one a core]")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Mixed precision.  [default: bfloat16 on a GPU, else float32]",
)
@click.option("--compile/--no-compile", default=None, help="torch.compile the step.  [default: no-compile]")
@click.option("--margin-accuracy", type=float, help="Difference in accuracy that does not matter.  [default: 0.005]")
@click.option("--hub", help="Data set on the hub, where --data is not given.  [default: ILSVRC/imagenet-1k]")
@common_options("lightball-imagenet")
def imagenet(common: Common, depth: str | None, **options: Any) -> int:
    """Train a ResNet on ImageNet at several batch sizes, with SGDM at its best rate and with SGD at the matched one.

    --data is a folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG, or with Parquet files as on the hub; any images in
    such folders will do. Only --scale paper is for the whole of ImageNet.

    \b
    Examples:
      lightball reproduce imagenet --data ./imagenet --scale paper --plan
      lightball reproduce imagenet --data ./imagenet --scale paper --batch-sizes 256,8192 --seeds 6
      lightball reproduce imagenet --data ./my-images --scale gpu --time-budget 60
    """
    from lightball.report.reproduce.imagenet import imagenet_page
    from lightball.reproduce.imagenet import PRESETS, plan_imagenet, read_imagenet, run_imagenet
    from lightball.reproduce.scales import preset

    settings = preset(PRESETS, common.scale, data=common.data, depth=int(depth) if depth else None, **options)
    epochs = f"{settings.epochs} epoch{'' if settings.epochs == 1 else 's'}"
    return carry_out(
        Experiment(
            name="imagenet",
            title=f"ImageNet, ResNet-{settings.depth}, {epochs} a run: SGD against SGDM",
            plan=partial(plan_imagenet, settings),
            run=partial(run_imagenet, settings),
            read=partial(read_imagenet, settings),
            page=imagenet_page,
        ),
        common,
    )
