"""The training loop against the loop that everybody writes: images and tokens per second, in one run.

    python benchmarks/training.py                 # about 4 minutes on one core
    python benchmarks/training.py --device cuda   # BERT-base, bfloat16, batches of 512 images and 64 × 128 tokens
    python benchmarks/training.py --json          # the same facts for a machine

Both sides train the same model on the same batches with momentum 0.9: `lightball.training.train`, which draws the
batches, follows a schedule, looks at every loss and measures a point at both ends (here on two examples); and bare
PyTorch, with `torch.optim.SGD`, which does nothing else. Data are random: bytes in CIFAR-10's shapes for ResNet-32, and
tokens for BERT of random weights. Sides take turns, and the table shows the ratio of their medians with the smallest
and the largest ratio of a round. Time is CPU time of the median step with one thread, or wall time of all steps of a
GPU that has finished. The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import click
import torch
from torch import Tensor, nn

from lightball.oracles import Sampling, build
from lightball.training import Point, Recipe, train
from lightball.training.recipe import Precision
from lightball.workloads import Data, Workload
from lightball.workloads.cifar10 import MEAN, STD
from lightball.workloads.image_layers import Standardise
from lightball.workloads.resnet import CifarResNet

LR, MOMENTUM, SEED = 0.02, 0.9, 1
TARGET = {"cpu": 0.97, "cuda": 1.0}
SMALL_BERT = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}


@dataclass(frozen=True)
class Cell:
    """A model with its data; ``units`` of an example are counted by the second."""

    name: str
    unit: str
    units: int
    workload: Workload
    batch_size: int
    num_steps: int


class Bert(nn.Module):
    """BERT with a classifier, tokens to logits."""

    def __init__(self, config: dict[str, int]) -> None:
        super().__init__()
        import transformers

        # Dropout off: it draws differently many numbers at a time.
        settings = transformers.BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **config)
        self.bert = transformers.BertForSequenceClassification(settings)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.bert(input_ids=tokens).logits
        return logits


class Stopwatch(nn.Module):
    """Hands its input on, and notes when: on a GPU, where looking waits, only as a point of the curve is measured."""

    def __init__(self, times: list[float]) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" or not self.training:
            self.times.append(now(x.device))
        return x


def resnet() -> nn.Module:
    return nn.Sequential(Standardise(MEAN, STD), CifarResNet(32))


def cells(device: torch.device) -> list[Cell]:
    on_gpu = device.type == "cuda"
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4096, 3, 32, 32), generator=draw, dtype=torch.uint8).to(device)
    labels = torch.randint(10, (4096,), generator=draw).to(device)
    length = 128 if on_gpu else 64
    tokens = torch.randint(30_000, (4096, length), generator=draw).to(device)
    kinds = labels % 2
    bert = partial(Bert, {} if on_gpu else SMALL_BERT)
    image_task, token_task = task("resnet", resnet, images, labels), task("bert", bert, tokens, kinds)
    return [
        Cell("ResNet-32", "images", 1, image_task, 512 if on_gpu else 32, 200 if on_gpu else 5),
        Cell("BERT", "tokens", length, token_task, 64 if on_gpu else 8, 200 if on_gpu else 5),
    ]


def task(name: str, model: Callable[[], nn.Module], inputs: Tensor, targets: Tensor) -> Workload:
    few = Data(inputs[:2], targets[:2])
    return Workload(name, model, Data(inputs, targets), few, few, measured=few)


def ours(cell: Cell, device: torch.device, precision: Precision) -> float:
    """Seconds of a step, between the points of the curve at both ends."""
    times: list[float] = []

    def note(point: Point) -> None:
        if point.step == 0:  # what follows are steps, until the next point begins to be measured
            times[:] = [now(device)]

    def model() -> nn.Module:
        return nn.Sequential(Stopwatch(times), cell.workload.model())

    recipe = Recipe(
        cell.batch_size,
        LR,
        MOMENTUM,
        num_steps=cell.num_steps,
        eval_every=cell.num_steps,
        precision=precision,
        schedule="cosine",
    )
    train(replace(cell.workload, model=model), recipe, SEED, device=device, on_point=note)
    return seconds_per_step(times[:-2], cell, device)  # up to the first of three evaluations


def bare(cell: Cell, device: torch.device, precision: Precision) -> float:
    """Seconds of a step of the loop that everybody writes."""
    workload = cell.workload
    times: list[float] = []
    model = build(lambda: nn.Sequential(Stopwatch(times), workload.model()), SEED).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), LR * (1 - MOMENTUM), MOMENTUM)
    inputs, targets = workload.train.inputs, workload.train.targets
    sampling = Sampling(len(inputs), cell.batch_size)
    times.append(now(device))
    for step in range(cell.num_steps):
        epoch, position = divmod(step, sampling.steps_per_epoch)
        if position == 0:
            batches = sampling.epoch(SEED, epoch).to(device).split(cell.batch_size)
        optimizer.zero_grad()
        with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
            loss = nn.functional.cross_entropy(model(inputs[batches[position]]), targets[batches[position]])
        loss.backward()
        optimizer.step()
    return seconds_per_step([*times, now(device)], cell, device)


def seconds_per_step(times: list[float], cell: Cell, device: torch.device) -> float:
    """On the CPU, where each step's beginning is known, of the median step: others on the machine disturb some."""
    if device.type == "cpu":
        return statistics.median(after - before for before, after in pairwise(times[1:]))
    return (times[1] - times[0]) / cell.num_steps


def now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@click.command()
@click.option("--device", "device_name", default="cpu", show_default=True)
@click.option("--rounds", default=25, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Default: bfloat16 on a GPU.")
@click.option("--json", "as_json", is_flag=True)
def main(device_name: str, rounds: int, precision: Precision | None, as_json: bool) -> None:
    """Print images and tokens per second of both loops, and their ratio."""
    device = torch.device(device_name)
    precision = precision or ("bfloat16" if device.type == "cuda" else "float32")
    if device.type == "cpu":
        torch.set_num_threads(1)
    target, rows = TARGET[device.type], []
    if not as_json:
        click.echo(f"{device_name}, {precision}, median of {rounds} rounds, target {target:.2f}")
    for cell in cells(device):
        for side in (ours, bare):  # imports, and kernels that are chosen when first used
            side(cell, device, precision)
        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        for number in range(rounds):
            for side in (ours, bare) if number % 2 else (bare, ours):
                seconds[side.__name__].append(side(cell, device, precision))
        amount = cell.batch_size * cell.units
        rates = {name: amount / statistics.median(values) for name, values in seconds.items()}
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["bare"], strict=True)]
        rows.append(
            {
                "model": cell.name,
                "unit": cell.unit,
                "batch_size": cell.batch_size,
                "ours_per_s": rates["ours"],
                "bare_per_s": rates["bare"],
                "ratio": rates["ours"] / rates["bare"],
                "ratio_range": [min(ratios), max(ratios)],
                "target": target,
            }
        )
        if not as_json:
            click.echo(
                f"{cell.name:<10} batch {cell.batch_size:>3}  {rates['ours']:>11,.0f} {cell.unit}/s  bare "
                f"{rates['bare']:>11,.0f}  ratio {rows[-1]['ratio']:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            )
    if as_json:
        facts = {"device": device_name, "precision": precision, "torch": torch.__version__, "rounds": rounds}
        click.echo(json.dumps({**facts, "rows": rows}, indent=2))
    if any(row["ratio"] < target for row in rows):  # type: ignore[operator]
        sys.exit(1)


if __name__ == "__main__":
    main()
