"""What a Monitor costs a training: the same plain loop with and without it, a measurement on every 1000th step.

    python benchmarks/monitor.py            # about 12 minutes on 2 cores
    python benchmarks/monitor.py --json     # the same facts for a machine

Both loops train the same model on the same batches in one process with one thread, in turns of 50 steps, and CPU time
is what counts, so that whatever else the machine does falls on neither. Nothing is done but training: data come from
memory, nothing is logged. A round is 1000 steps of each with one measurement at the end; the table
shows the median of the rounds with the smallest and the largest. At the end the weights of both are compared, to the
bit. The exit code is 1 if they differ, or if the overhead is above its target.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from lightball.forecast.monitor import Monitor
from lightball.workloads import load

TARGET = 0.15
TURN = 50


class Block(nn.Module):
    """Two convolutions with GroupNorm, and what skips them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, outside), nn.GroupNorm(8, outside)])
        self.skip = nn.Conv2d(inside, outside, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.norms[0](self.first(x)))
        return relu(self.norms[1](self.second(inner)) + self.skip(x))


def resnet() -> nn.Module:
    """ResNet-20 with GroupNorm, 0.27 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU()]
    inside = 16
    for outside in (16, 32, 64):
        for number in range(3):
            layers.append(Block(inside, outside, 2 if outside > inside and number == 0 else 1))
            inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def images(count: int = 2048) -> tuple[Tensor, Tensor]:
    """Ten classes of noisy 3 × 32 × 32 patterns."""
    random = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 10, (count,), generator=random)
    patterns = torch.randn(10, 3, 32, 32, generator=random)
    return 0.3 * patterns[targets] + torch.randn(count, 3, 32, 32, generator=random), targets


def digits() -> tuple[Tensor, Tensor]:
    train = load("digits").train
    return train.inputs, train.targets


@dataclass(frozen=True)
class Case:
    model: Callable[[], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor]]
    batch_size: int
    lr: float
    rounds: int


CASES = {
    "digits MLP": Case(lambda: load("digits").model(), digits, 64, 0.02, 5),
    "GroupNorm ResNet": Case(resnet, images, 32, 0.01, 2),
}


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


class Side:
    """One loop that can be stopped and goes on."""

    def __init__(self, case: Case, every: int, path: Path | None) -> None:
        torch.manual_seed(0)
        self.model = case.model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=case.lr, momentum=0.9)
        self.batches = self._batches(*case.data(), case.batch_size)
        self.seconds = 0.0
        self.monitor = None
        if path is not None:
            self.monitor = Monitor(self.model, self.optimizer, loss_of, every, path=path, on_error="raise")

    def go(self, num_steps: int) -> None:
        begun = time.process_time()
        for _ in range(num_steps):
            batch = next(self.batches)
            self.optimizer.zero_grad()
            loss_of(self.model, batch).backward()
            self.optimizer.step()
            if self.monitor is not None:
                self.monitor.step(batch)
        self.seconds += time.process_time() - begun

    @staticmethod
    def _batches(inputs: Tensor, targets: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(1)
        while True:
            for rows in torch.randperm(len(inputs), generator=random).split(size):
                yield inputs[rows], targets[rows]


def measured(case: Case, every: int, rounds: int, folder: Path) -> dict[str, Any]:
    plain, watched = Side(case, every, None), Side(case, every, folder / "monitor.jsonl")
    for side in (plain, watched):
        side.go(every)  # imports, and the first measurement
    overheads = []
    turn = min(TURN, every)
    for _ in range(rounds):
        plain.seconds = watched.seconds = 0.0
        for number in range(every // turn):
            for side in (plain, watched) if number % 2 else (watched, plain):
                side.go(turn)
        overheads.append(watched.seconds / plain.seconds - 1)
    assert watched.monitor is not None
    probes = [record.seconds or 0.0 for record in watched.monitor.records]
    same = all(map(torch.equal, plain.model.state_dict().values(), watched.model.state_dict().values()))
    step = plain.seconds / every
    return {
        "parameters": sum(p.numel() for p in plain.model.parameters()),
        "batch_size": case.batch_size,
        "every": every,
        "rounds": rounds,
        "ms_per_step": 1000 * step,
        "ms_per_measurement": 1000 * statistics.median(probes),
        "steps_per_measurement": statistics.median(probes) / step,
        "overhead": statistics.median(overheads),
        "overhead_range": [min(overheads), max(overheads)],
        "target": TARGET,
        "same_weights": same,
    }


@click.command()
@click.option("--every", default=1000, show_default=True)
@click.option("--rounds", type=int, help="of each model; by default 5 of the MLP and 2 of the ResNet")
@click.option("--only", type=click.Choice(list(CASES)))
@click.option("--json", "as_json", is_flag=True)
def main(every: int, rounds: int | None, only: str | None, as_json: bool) -> None:
    """Print what a measurement costs, and by how much a monitored loop is slower."""
    torch.set_num_threads(1)
    rows = []
    for name, case in CASES.items():
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"model": name} | measured(case, every, rounds or case.rounds, Path(folder)))
        row = rows[-1]
        if not as_json:
            if len(rows) == 1:
                click.echo(f"a measurement on every {every}th step, one thread; CPU time, median of the rounds")
                click.echo("model             parameters  batch  step       measurement            overhead (range)")
            low, high = row["overhead_range"]
            click.echo(
                f"{name:<17} {row['parameters']:>10,} {row['batch_size']:>6}  {row['ms_per_step']:6.2f} ms  "
                f"{row['ms_per_measurement']:7.0f} ms = {row['steps_per_measurement']:4.0f} steps  "
                f"{row['overhead']:6.1%} ({low:.1%} to {high:.1%}), target {TARGET:.0%}; weights "
                f"{'the same to the bit' if row['same_weights'] else 'DIFFER'}"
            )
    if as_json:
        click.echo(json.dumps({"torch": torch.__version__, "rows": rows}, indent=2))
    sys.exit(any(not row["same_weights"] or row["overhead"] > TARGET for row in rows))


if __name__ == "__main__":
    main()
