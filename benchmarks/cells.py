"""What the workers of ``vectorised.py`` do, in a module of its own so that they keep what they have made."""

from __future__ import annotations

from functools import cache
from typing import Any

REPLICAS = 112
SETTINGS: dict[str, Any] = {"epochs": 1}


def runs_of(worker: int, cores: int, batch_size: int) -> list[Any]:
    """The share of the runs of one worker: pairs at several rates."""
    from lightball.studies.runs import Run, seeds

    rates = (0.05, 0.1, 0.2, 0.4)
    pairs = [
        [Run(batch_size, rates[i % len(rates)], seed, momentum) for momentum in (0.0, 0.9)]
        for i, seed in enumerate(seeds("tune", REPLICAS // 2))
    ]
    return [run for pair in pairs[worker::cores] for run in pair]


@cache
def trainer(task: str, batch_size: int) -> Any:
    from lightball.studies.engines.batch_trainer import BatchTrainer
    from lightball.studies.settings import Settings
    from lightball.workloads import load

    return BatchTrainer(load(task), Settings(**SETTINGS), batch_size, "cpu")


@cache
def stepper(task: str, batch_size: int) -> Any:
    from lightball.dynamics import Stepper

    made = trainer(task, batch_size)
    return Stepper(made.oracle, made.footprint.width)


def vectorised(worker: int, cores: int, task: str, batch_size: int, num_steps: int) -> None:
    """Train this worker's share, a chunk at a time, as the engine does."""
    import torch

    from lightball.dynamics import Ensemble
    from lightball.rules import canonical

    made, step = trainer(task, batch_size), stepper(task, batch_size)
    runs, width = runs_of(worker, cores, batch_size), made.footprint.width
    for start in range(0, len(runs), width):
        chunk = runs[start : start + width]
        chunk += [chunk[-1]] * (width - len(chunk))
        hyper = canonical(torch.tensor([r.effective_lr for r in chunk]), torch.tensor([r.momentum for r in chunk]))
        Ensemble(made.oracle, [r.seed for r in chunk], hyper, stepper=step).advance(num_steps)


def plain(worker: int, cores: int, task: str, batch_size: int, num_steps: int) -> None:
    """Train this worker's share, one model after the other, in the loop that everybody writes."""
    import torch

    from lightball.oracles import build

    made = trainer(task, batch_size)
    inputs, targets = made.oracle.inputs, made.oracle.targets
    for run in runs_of(worker, cores, batch_size):
        model = build(made.workload.model, run.seed)
        lr = run.effective_lr * (1 - run.momentum)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=run.momentum)
        batches = made.oracle.stream([run.seed])
        for step in range(num_steps):
            batch = batches(step)[0]
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()


def sgemm(worker: int, cores: int, repeats: int) -> None:
    import torch

    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    for _ in range(repeats):
        a @ b


def flops(task: str, batch_size: int) -> float:
    """Floating-point operations of the products and convolutions of one training step of one model."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    made = trainer(task, batch_size)
    model = made.workload.model()
    with FlopCounterMode(display=False) as counter:
        outputs = model(made.oracle.inputs[:batch_size])
        torch.nn.functional.cross_entropy(outputs, made.oracle.targets[:batch_size]).backward()
    return float(counter.get_total_flops())
