"""One of several processes of the tests of data parallelism: runs the cases named on its command line, prints results.

RANK=0 WORLD_SIZE=2 … python ranks_of_a_test.py FOLDER case …
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_tasks import Noisy, task

from lightball.errors import InputError, OutOfTime
from lightball.training import History, Point, Ranks, Recipe, find_ranks, train
from lightball.workloads import Data, Workload, cross_entropy
from lightball.workloads.imagenet.group_norm import GroupBatchNorm2d

SEED = 3
RECIPE = Recipe(48, 0.5, momentum=0.9, epochs=3, weight_decay=0.01, eval_every=4)
RECIPES = {
    "SGDM": RECIPE,
    "SGD": replace(RECIPE, momentum=0.0),
    "micro-batches, clipped": replace(RECIPE, accumulate=3, clip_norm=0.2, schedule="cosine", decay="matrices"),
    "iid SVAG": replace(RECIPE, ell=2, sampling="iid", epochs=1),
    "whole last batch": replace(RECIPE, batch_size=62, drop_last=False),
    "float16": replace(RECIPE, precision="float16"),
}
"""With 249 examples; 62 divides into 31 and 31, and what is left is 1."""


class Odd(nn.Module):
    """With parameters that the loss does not depend on, or only where an example is large, and a frozen one."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 16), nn.SiLU(), nn.Linear(16, 6)).to(dtype)
        self.spare = nn.Parameter(torch.ones(3, 2, dtype=dtype))
        self.frozen = nn.Parameter(torch.ones(2, dtype=dtype), requires_grad=False)
        self.rare = nn.Parameter(torch.zeros(6, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.net(x)
        large = x[:, :1] > 2
        return outputs + large * self.rare if large.any() else outputs


class Preparing(Odd):
    def prepare(self, step: int, inputs: Tensor) -> None:
        PREPARED.append((step, inputs[:, 0].tolist()))


class Normalised(nn.Module):
    """BatchNorm over groups of 16 examples, wherever they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(5, 8, 1)
        self.norm = GroupBatchNorm2d(8, group=16)
        self.last = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x.reshape(-1, 5, 2, 2)))).flatten(1))


def normalised(accumulate: int, _: Path, ranks: Ranks | None) -> Any:
    recipe = replace(RECIPE, batch_size=64, accumulate=accumulate)
    return as_json(train(task(Normalised), recipe, SEED, ranks=ranks))


PREPARED: list[tuple[int, list[float]]] = []


def odd_sizes(num_train: int = 249, dtype: torch.dtype = torch.float64, model: type[Odd] = Odd) -> Workload:
    """Sizes that two does not divide."""
    full = task(partial(model, dtype), dtype)
    cut = {name: getattr(full, name) for name in ("train", "validation", "test")}
    sizes = {"train": num_train, "validation": 49, "test": 33}
    return replace(full, **{name: Data(d.inputs[: sizes[name]], d.targets[: sizes[name]]) for name, d in cut.items()})


def nan_in_one_example() -> Workload:
    """A loss that is NaN for one of the training examples, which is in the part of one process."""
    full = odd_sizes()
    targets = full.train.targets.clone()
    targets[100] = 5
    return replace(full, train=Data(full.train.inputs, targets), loss=nan_at_5)


def nan_at_5(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.where(targets == 5, torch.nan, cross_entropy(outputs, targets))


def as_json(history: History) -> dict[str, Any]:
    return {"points": [asdict(p) for p in history.points], "failed_at": history.failed_at}


def refusal(function: Callable[[], object]) -> str:
    try:
        function()
    except InputError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def run(case: str, folder: Path, ranks: Ranks | None) -> Any:
    """The result of one case, as JSON."""
    if case in RECIPES:
        workload = odd_sizes(dtype=torch.float32 if case == "float16" else torch.float64)
        if case == "whole last batch":
            workload = odd_sizes(248)
        return as_json(train(workload, RECIPES[case], SEED, ranks=ranks))
    return CASES[case](folder, ranks)


def diverging(_: Path, ranks: Ranks | None) -> Any:
    return as_json(train(nan_in_one_example(), RECIPE, SEED, ranks=ranks))


def refusals(folder: Path, ranks: Ranks | None) -> list[str]:
    wrong = [
        replace(RECIPE, batch_size=25),
        replace(RECIPE, batch_size=50, accumulate=4),
        replace(RECIPE, batch_size=62, drop_last=False),
        replace(RECIPE, in_backward=True),
    ]
    refused = [refusal(partial(train, odd_sizes(), recipe, SEED, ranks=ranks)) for recipe in wrong]
    refused.append(refusal(partial(train, task(Noisy), RECIPE, SEED, ranks=ranks)))
    train(odd_sizes(), RECIPE, SEED, folder=folder / "another", ranks=ranks)
    other = partial(train, odd_sizes(), RECIPE, SEED + 1, folder=folder / "another", ranks=ranks)
    apart = partial(train, odd_sizes(), RECIPE, SEED, folder=folder / f"apart-{ranks.rank}", ranks=ranks)
    if ranks.rank == 0:
        train(odd_sizes(), RECIPE, SEED, folder=folder / "apart-0")
    return [*refused, refusal(other), refusal(apart)]


def announced(_: Path, ranks: Ranks | None) -> Any:
    PREPARED.clear()
    train(odd_sizes(model=Preparing), replace(RECIPE, accumulate=2), SEED, ranks=ranks)
    return PREPARED


def stopped(folder: Path, ranks: Ranks | None) -> Any:
    """The deadline has passed by the clock of the last process only, after the point at step 8."""
    passed: list[int] = []

    def stop(point: Point) -> None:
        passed.append(point.step)

    class Clock:
        @staticmethod
        def time() -> float:
            return 200.0 if ranks.rank == ranks.size - 1 and passed[-1:] == [8] else 0.0

    from lightball.training import loop

    loop.time = Clock  # type: ignore[attr-defined]
    try:
        train(odd_sizes(), RECIPE, SEED, folder=folder / "stopped", on_point=stop, deadline=100.0, ranks=ranks)
    except OutOfTime as error:
        said = str(error)
    finally:
        loop.time = time  # type: ignore[attr-defined]
    ranks.barrier()
    kept = sorted(path.name for path in (folder / "stopped/checkpoints").iterdir())
    ranks.barrier()
    history = train(odd_sizes(), RECIPE, SEED, folder=folder / "stopped", ranks=ranks)
    return said, kept, as_json(history)


def killed(folder: Path, ranks: Ranks | None) -> Any:
    """The last process kills itself after the point at step 8, where there is not yet a file that says it has."""
    mark = folder / "killed-once"

    def kill(point: Point) -> None:
        if point.step == 8 and ranks is not None and ranks.rank == ranks.size - 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return as_json(
        train(odd_sizes(), RECIPE, SEED, folder=folder / "killed", checkpoint_every=3, on_point=kill, ranks=ranks)
    )


CASES: dict[str, Callable[[Path, Ranks | None], Any]] = {
    "diverging": diverging,
    **{f"groups, {parts} micro-batches": partial(normalised, parts) for parts in (1, 2, 4)},
    "refusals": refusals,
    "announced": announced,
    "stopped": stopped,
    "killed": killed,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    found = find_ranks(cpu=True)
    assert found is not None
    for name in sys.argv[2:]:
        print(json.dumps(run(name, Path(sys.argv[1]), found)), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
