"""Digits, cosine schedule: momentum is dropped in the middle, and the rest of the run compared with keeping it.

    python benchmarks/drop_momentum.py            # the table of docs/drop-momentum.md, about two minutes
    python benchmarks/drop_momentum.py --json

All arms of a seed go on from the same weights, buffers and batches: momentum kept (the reference); `drop_momentum`,
as it is and with what is pending in the buffer applied; and the naive switch, momentum = 0 at the same number of lr.
What counts is the loss on all training data, averaged over the rest of the run, relative to the reference. The exit
code is 1 if at the smallest lr `drop_momentum` is not within 1 % or the naive switch is.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from lightball.optim import drop_momentum
from lightball.workloads import load

TOLERANCE = 0.01
ARMS = ("kept", "dropped", "applied", "naive")


@dataclass(frozen=True)
class Row:
    """Relative differences of the loss to the run that kept momentum: mean over the seeds and standard error."""

    lr: float
    loss: float
    difference: dict[str, float]
    standard_error: dict[str, float]

    def within(self, arm: str) -> bool:
        """Whether all of mean ± 3 standard errors is inside the tolerance."""
        return abs(self.difference[arm]) + 3 * self.standard_error[arm] < TOLERANCE

    def outside(self, arm: str) -> bool:
        """Whether all of it is outside."""
        return abs(self.difference[arm]) - 3 * self.standard_error[arm] > TOLERANCE


def measured(lr: float, num_steps: int, seeds: int, arms: tuple[str, ...] = ARMS) -> Row:
    """One row of the table, from `seeds` runs of each arm."""
    losses = [losses_of(lr, num_steps, seed, arms) for seed in range(seeds)]
    relative = {arm: [each[arm] / each["kept"] - 1 for each in losses] for arm in arms if arm != "kept"}
    return Row(
        lr,
        statistics.mean(each["kept"] for each in losses),
        {arm: statistics.mean(values) for arm, values in relative.items()},
        {arm: statistics.stdev(values) / seeds**0.5 for arm, values in relative.items()},
    )


def losses_of(lr: float, num_steps: int, seed: int, arms: tuple[str, ...]) -> dict[str, float]:
    """The loss of each arm over the second half of one run."""
    task = load("digits")
    torch.manual_seed(seed)
    model = task.model()
    optimizer = SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    scheduler = CosineAnnealingLR(optimizer, num_steps)
    inputs, targets = task.train.inputs, task.train.targets
    rows = torch.randint(len(inputs), (num_steps, 32), generator=torch.Generator().manual_seed(seed))
    train(model, optimizer, scheduler, (inputs, targets), rows[: num_steps // 2])
    losses = {}
    for arm in arms:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # copying an optimizer forgets that a scheduler watches its steps
            own_model, own_optimizer, own_scheduler = copy.deepcopy((model, optimizer, scheduler))
            switch(arm, own_optimizer, own_scheduler)
            rest = rows[num_steps // 2 :]
            losses[arm] = train(own_model, own_optimizer, own_scheduler, (inputs, targets), rest)
    return losses


def switch(arm: str, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    if arm == "naive":
        for group in optimizer.param_groups:
            group["momentum"] = 0.0
    elif arm != "kept":
        drop_momentum(optimizer, scheduler, pending="apply" if arm == "applied" else "match")


def train(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, data: tuple[Tensor, Tensor], rows: Tensor
) -> float:
    """A step on each batch; the loss on all data, averaged over every tenth step."""
    inputs, targets = data
    losses = []
    for number, batch in enumerate(rows):
        optimizer.zero_grad()
        cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        scheduler.step()
        if number % 10 == 9:
            with torch.no_grad():
                losses.append(cross_entropy(model(inputs), targets).item())
    return statistics.mean(losses)


def table(rows: list[Row]) -> str:
    """In Markdown, differences in percent."""
    head = "| lr | loss, momentum kept | `drop_momentum` | pending applied | naive switch |\n|---|---|---|---|---|"
    lines = [head]
    for row in rows:
        cells = [f"{100 * row.difference[arm]:+.2f} ± {100 * row.standard_error[arm]:.2f} %" for arm in ARMS[1:]]
        lines.append(f"| {row.lr:g} | {row.loss:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@click.option("--seeds", default=16, show_default=True)
@click.option("--steps", default=400, show_default=True, help="Steps of a run; momentum is dropped in the middle.")
def main(as_json: bool, seeds: int, steps: int) -> None:
    torch.set_num_threads(1)
    rows = [measured(lr, steps, seeds) for lr in (0.002, 0.005, 0.01, 0.02, 0.05)]
    facts: list[dict[str, Any]] = [asdict(row) for row in rows]
    print(json.dumps(facts, indent=1) if as_json else table(rows))
    sys.exit(0 if rows[0].within("dropped") and rows[0].outside("naive") else 1)


if __name__ == "__main__":
    main()
