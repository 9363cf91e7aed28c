"""What a comparison will cost, from a measured step; said before it starts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from lightball.studies.engine import Trainers, one_thread
from lightball.studies.settings import Settings


@dataclass(frozen=True)
class BatchPlan:
    """The part of a plan at one batch size.

    ``confirmation_runs`` is the fewest and the most: pairs are added in stages until the verdict is clear.
    ``seconds_per_run`` is measured without compilation, on one core or the GPU, with the runs of a chunk side by
    side; a compiled step is faster.
    """

    batch_size: int
    steps_per_run: int
    width: int
    compiled: bool
    tuning_runs: int
    confirmation_runs: tuple[int, int]
    seconds_per_run: float


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison and an estimate of its time, if no grid grows; imports and compilation not counted."""

    batches: tuple[BatchPlan, ...]
    num_workers: int

    @property
    def runs(self) -> tuple[int, int]:
        """The fewest and the most runs."""
        fewest = sum(b.tuning_runs + b.confirmation_runs[0] for b in self.batches)
        return fewest, sum(b.tuning_runs + b.confirmation_runs[1] for b in self.batches)

    @property
    def steps(self) -> int:
        """Training steps of the fewest runs, over all of them."""
        return sum((b.tuning_runs + b.confirmation_runs[0]) * b.steps_per_run for b in self.batches)

    @property
    def seconds(self) -> tuple[float, float]:
        """Wall-clock for the fewest and for the most runs."""
        fewest = sum((b.tuning_runs + b.confirmation_runs[0]) * b.seconds_per_run for b in self.batches)
        most = sum((b.tuning_runs + b.confirmation_runs[1]) * b.seconds_per_run for b in self.batches)
        return fewest / self.num_workers, most / self.num_workers

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "runs": self.runs, "steps": self.steps, "seconds": self.seconds}


def make_plan(settings: Settings, trainers: Trainers, num_workers: int) -> Plan:
    """The plan, with chunk widths and whether steps are compiled; both follow from shapes, not from timings.

    Raises:
        InputError: a batch size does not fit the data.
    """
    rules, rates = 1 + len(settings.momentum), len(settings.lr)
    tuning_runs = rates * rules * settings.tuning_seeds
    # At equal rates all rules run on the seeds of the first stage; the selected rates are among them.
    fewest = rates * rules * settings.stages[0]
    most = fewest + rules * (settings.stages[-1] - settings.stages[0])
    batches = []
    for batch_size in settings.batch_sizes:
        trainer = trainers[batch_size]
        compiled = trainer.compiles(tuning_runs + fewest)
        # Not wider than a phase has runs: in a compiled chunk, missing runs are computed all the same.
        width = min(trainer.footprint.width, tuning_runs, rules * settings.stages[0])
        with one_thread():
            seconds = trainer.seconds_per_run(width)
        batches.append(BatchPlan(batch_size, trainer.num_steps, width, compiled, tuning_runs, (fewest, most), seconds))
    return Plan(tuple(batches), num_workers)


def in_words(seconds: float) -> str:
    """A duration for people: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
