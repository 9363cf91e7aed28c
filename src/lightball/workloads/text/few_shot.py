"""Few-shot samples: k examples a class to train on, as many to select on, another sample for every seed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from lightball.errors import InputError
from lightball.oracles import generator
from lightball.workloads.text.reading import Rows, read, read_table, root_of, rows_of
from lightball.workloads.text.tasks import TextTask

OFFICIAL_K = 512
OFFICIAL_SEEDS = (13, 21, 42, 87, 100)


def sample(task: TextTask, k: int, seed: int, data: str | Path | None = None) -> tuple[Rows, Rows]:
    """Training and selection rows of a seed: disjoint, k of each class in either, class by class.

    At k = 512 the seeds 13, 21, 42, 87 and 100 are the samples of the MeZO code, where the folder has them in
    ``fewshot/<task>/kshot512.parquet``. All others are drawn alike from the training split: its rows are shuffled, a
    function of task and seed, and of each class the first k go to training and the next k to selection; so a smaller
    k gives a part of the same order. Of a class that the task calls scarce, training takes up to k and selection up
    to k of what is left, as there: TREC at k = 512 has 86 + 5 · 512 = 2,646 examples to train and 2,243 to select on.
    The counts are those of every seed.

    Raises:
        InputError: a class has too few examples, or the rows cannot be read.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k is {k!r}, but must be a whole number from 1 up: examples of a class")
    if k == OFFICIAL_K and seed in OFFICIAL_SEEDS:
        official = _official(task, root_of(data))
        if official:
            return official[seed]
    rows = read(task, task.train, data)
    order = torch.randperm(len(rows), generator=generator(use="few-shot", task=task.name, seed=seed)).tolist()
    of_class: list[list[int]] = [[] for _ in task.labels]
    for row in order:
        of_class[rows.labels[row]].append(row)
    _check_counts(task, k, [len(members) for members in of_class])
    train = [row for members in of_class for row in members[:k]]
    selection = [row for members in of_class for row in members[k : 2 * k]]
    return rows.take(train), rows.take(selection)


def evaluation_rows(task: TextTask, num_examples: int = 1000, data: str | Path | None = None) -> Rows:
    """The test split, or ``num_examples`` of it where it has more: the same ones for every seed.

    Raises:
        InputError: the rows cannot be read, or fewer than 2 are asked for.
    """
    if num_examples < 2:
        raise InputError(f"the number of test examples is {num_examples}, but must be at least 2")
    rows = read(task, task.test, data)
    if len(rows) <= num_examples:
        return rows
    order = torch.randperm(len(rows), generator=generator(use="few-shot test", task=task.name))
    return rows.take(order[:num_examples].tolist())


def _check_counts(task: TextTask, k: int, counts: list[int]) -> None:
    for name, count in zip(task.labels, counts, strict=True):
        scarce = name in task.scarce
        required = 1 if scarce else 2 * k
        if count < required:
            raise InputError(
                f"task {task.name!r} has {count} training examples of class {name!r}, but k = {k} requires {required}"
                + ("" if scarce else f" ({k} to train and {k} to select on): take k of at most {count // 2}")
            )


@cache
def _official(task: TextTask, root: Path | None) -> dict[int, tuple[Rows, Rows]]:
    """The MeZO code's samples by seed; nothing where the folder has none.

    Raises:
        InputError: the file is there, but cannot be read or lacks a seed.
    """
    import pyarrow.compute as compute

    file = root / "fewshot" / task.name / f"kshot{OFFICIAL_K}.parquet" if root else None
    if file is None or not file.is_file():
        return {}
    table = read_table(file, task, more=("seed", "split"))
    samples = {}
    for seed in OFFICIAL_SEEDS:
        of_seed = table.filter(compute.equal(table["seed"], seed))
        train, dev = (
            rows_of([of_seed.filter(compute.equal(of_seed["split"], split))], task, f"{str(file)!r}, seed {seed}")
            for split in ("train", "dev")
        )
        samples[seed] = train, dev
    return samples
