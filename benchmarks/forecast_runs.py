"""Real runs to hold forecasts against: phases of training, and pairs of SGD and SGDM from their weights."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import torch
from torch import nn

from lightball.forecast.measured import MeasuredValue, measured_value
from lightball.oracles import Sampling, SamplingKind, build, generator
from lightball.workloads import Workload, load

TASKS = ("digits", "digits-conv")
PHASES = {"start": 1, "middle": 6, "end": 24}  # epochs of training before the forecast
TRAINED_AT = {"batch_size": 64, "effective_lr": 0.4, "momentum": 0.9}
BATCH_SIZES = (16, 64, 256)
EFFECTIVE_LRS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6)
HORIZONS = (50, 200)
SAMPLINGS: tuple[SamplingKind, ...] = ("iid", "shuffle")
# Fewer of the convolutional net, whose steps take ten times as long.
FEWEST_PAIRS = {"digits": {16: 24, 64: 16, 256: 8}, "digits-conv": {16: 16, 64: 8, 256: 6}}
MOST_PAIRS = {"digits": {16: 96, 64: 64, 256: 32}, "digits-conv": {16: 32, 64: 16, 256: 6}}


@dataclass(frozen=True)
class Group:
    """Cells that are measured at once: all rates and horizons of one task, phase, batch size and sampling."""

    task: str
    phase: str
    batch_size: int
    sampling: SamplingKind

    @property
    def key(self) -> str:
        """Its name in files."""
        return f"{self.task} {self.phase} {self.batch_size} {self.sampling}"


def groups(tasks: tuple[str, ...] = TASKS) -> Iterator[Group]:
    """Cheap ones first."""
    for task, batch_size, phase, sampling in product(tasks, BATCH_SIZES, PHASES, SAMPLINGS):
        yield Group(task, phase, batch_size, sampling)


@cache
def phase(task: str, name: str) -> tuple[Workload, nn.Module]:
    """The workload and its model after so many epochs of SGDM, always the same."""
    workload = load(task)
    model = build(workload.model, seed=0)
    batch, eta, beta = TRAINED_AT["batch_size"], TRAINED_AT["effective_lr"], TRAINED_AT["momentum"]
    optimizer = torch.optim.SGD(model.parameters(), lr=eta * (1 - beta), momentum=beta)
    sampling = Sampling(len(workload.train), int(batch))
    for epoch in range(PHASES[name]):
        order = torch.randperm(len(workload.train), generator=generator(use="forecast benchmark", epoch=epoch))
        for examples in order.split(int(batch))[: sampling.steps_per_epoch]:
            optimizer.zero_grad()
            workload.loss(model(workload.train.inputs[examples]), workload.train.targets[examples]).mean().backward()
            optimizer.step()
    return workload, model


def measure(path: Path, tasks: tuple[str, ...], time_budget: float, device: str) -> dict[str, list[MeasuredValue]]:
    """What is in the file, and what is not yet: measured and added to it, group by group, while there is time."""
    found = read(path)
    started = time.monotonic()
    for group in groups(tasks):
        if group.key in found or time.monotonic() - started > time_budget:
            continue
        workload, model = phase(group.task, group.phase)
        values = measured_value(
            workload,
            deepcopy(model),
            EFFECTIVE_LRS,
            float(TRAINED_AT["momentum"]),
            batch_size=group.batch_size,
            num_steps=HORIZONS,
            sampling=group.sampling,
            fewest_pairs=FEWEST_PAIRS[group.task][group.batch_size],
            most_pairs=MOST_PAIRS[group.task][group.batch_size],
            device=device,
        )
        found[group.key] = list(values.values())
        kept = {key: [asdict(value) for value in some] for key, some in found.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(kept, indent=1) + "\n")
        temporary.replace(path)
        print(f"measured {group.key}, {time.monotonic() - started:.0f} s", flush=True)
    return found


def read(path: Path) -> dict[str, list[MeasuredValue]]:
    """Measurements by the key of their group."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text())
    return {key: [MeasuredValue(**value) for value in some] for key, some in kept.items()}
