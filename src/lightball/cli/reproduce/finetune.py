"""``lightball reproduce finetune``: few-shot fine-tuning of a language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lightball.cli.lists import Floats
from lightball.cli.reproduce.options import Common, common_options
from lightball.cli.reproduce.running import Experiment, carry_out

if TYPE_CHECKING:
    from lightball.reproduce.finetune_settings import FinetuneSettings


def _words(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value.split(","))


@click.command(short_help="Few-shot fine-tuning of a language model.")
@click.option("--model", help="Hub id, or folder of a pretrained model.  [default: roberta-large]")
@click.option(
    "--head",
    type=click.Choice(["prompt", "classifier"]),
    help="prompt: the masked-LM head at the mask of a template. classifier: a fresh linear layer, for encoders "
    "without one.  [default: prompt]",
)
@click.option(
    "--tasks", callback=_words, help="Of sst2,sst5,trec,snli,mnli.  [default: all; smoke: sst2; gpu: sst2,trec]"
)
@click.option("--k", type=int, help="Examples of a class to train on, and as many to select on.")
@click.option("--seeds", type=int, help="Pairs, each on a sample of its own.  [default: 6]")
@click.option("--num-steps", type=int, help="Of a run.")
@click.option("--eval-every", type=int, help="Steps between evaluations.")
@click.option("--batch-size", type=int, help="[default: 8]")
@click.option("--lr", type=Floats(), help="Effective learning rates η to try; SGDM runs at the torch rate η(1 − β).")
@click.option("--tuning-seeds", type=int, help="Further samples, on which rates are chosen.")
@click.option("--max-extensions", type=int, help="How often each end of the grid may grow.")
@click.option("--momentum", type=float, help="β of SGDM.  [default: 0.9]")
@click.option("--length", type=int, help="Tokens of a row at most.  [default: 128, pairs 256; smoke: 32; cpu: 64]")
@click.option("--clip-norm", type=float, help="Clip the gradient norm, 0 for not.  [default: 1]")
@click.option("--weight-decay", type=float, help="None on biases and LayerNorm.  [default: 0]")
@click.option("--schedule", help="Of the learning rate.  [default: linear]")
@click.option("--dropout", type=float, help="[default: the model's own]")
@click.option("--num-test", type=int, help="Test examples at most.  [default: 1000; smoke: 16]")
@click.option("--margin-accuracy", type=float, help="Difference in accuracy that does not matter.  [default: 0.01]")
@click.option(
    "--in-backward/--after-backward",
    default=None,
    help="Update parameters within the backward pass, to fit large models.  [default: after-backward]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Mixed precision.  [default: float32; gpu: bfloat16]",
)
@click.option(
    "--keep-runs/--drop-runs",
    default=None,
    help="Keep curves, and checkpoints of runs in progress: for runs that are long.  [default: drop-runs; paper: "
    "keep-runs]",
)
@common_options("lightball-finetune")
def finetune(common: Common, **options: Any) -> int:
    """Fine-tune a masked language model on a few examples a class, with SGD and with SGDM.

    Both rules are tuned on samples of their own, and compared as pairs on others; k = 512 has the paper's samples
    where --data has them. The best checkpoint on the selection data is tested.

    \b
    Examples:
      lightball reproduce finetune --scale paper --plan
      lightball reproduce finetune --scale gpu --tasks sst2,snli
      lightball reproduce finetune --head classifier --model ./my-encoder --data ./data
      lightball reproduce finetune --time-budget 30
    """
    from lightball.report.reproduce.finetune import finetune_page
    from lightball.reproduce.finetune import plan_finetune, read_finetune, run_finetune
    from lightball.reproduce.finetune_settings import PRESETS
    from lightball.reproduce.scales import preset

    settings = preset(PRESETS, common.scale, data=common.data, **options)
    _check_sources(settings)
    return carry_out(
        Experiment(
            name="finetune",
            title=f"Few-shot fine-tuning of {settings.model_name}, head {settings.head}: SGD against SGDM",
            plan=partial(plan_finetune, settings),
            run=partial(run_finetune, settings),
            read=partial(read_finetune, settings),
            page=finetune_page,
        ),
        common,
    )


def _check_sources(settings: FinetuneSettings) -> None:
    """Find the model and the data before anything else, so that what is missing is said with its flag."""
    from lightball.workloads.text.few_shot import evaluation_rows
    from lightball.workloads.text.pretrained import load_tokenizer
    from lightball.workloads.text.tasks import find_task

    with _named("--model"):
        load_tokenizer(settings.model)
    with _named("--data"):
        for task in settings.tasks:
            evaluation_rows(find_task(task), data=settings.data)


@contextmanager
def _named(flag: str) -> Iterator[None]:
    from lightball.errors import InputError

    try:
        yield
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error
