"""What a comparison will cost, said before it starts; and which runs share a chunk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightball.studies.runs import Chunk, Phase, Run, pack
from lightball.studies.settings import Settings


@dataclass(frozen=True)
class BatchPlan:
    """The part of a plan at one batch size.

    ``width`` runs are computed at once; with ``pairs_together`` False each run is a chunk of its own.
    ``confirmation_runs`` is the fewest and the most: pairs are added in stages until the verdict is clear.
    ``seconds_per_run`` is measured, without compilation, on one core or the GPU, with the runs of a chunk side by
    side; a compiled step is faster. It and ``steps_per_run`` are None for a command, of which nothing is known.
    ``memory``: bytes of a worker at its peak, on the CPU all of the process, on a GPU what torch allocates; measured
    with the step, None where it is not known.
    """

    batch_size: int
    steps_per_run: int | None
    width: int
    compiled: bool
    tuning_runs: int
    confirmation_runs: tuple[int, int]
    seconds_per_run: float | None
    pairs_together: bool = True
    memory: int | None = None

    @property
    def composition(self) -> dict[str, Any]:
        """What decides which runs share a chunk, and so their rounding, and what was measured; the folder of a study
        keeps it."""
        kept = {"width": self.width, "compiled": self.compiled, "seconds_per_run": self.seconds_per_run}
        return kept if self.memory is None else {**kept, "memory": self.memory}

    def chunks(self, pairs: Iterable[Sequence[Run]], phase: Phase) -> list[Chunk]:
        if not self.pairs_together:
            pairs = [[run] for pair in pairs for run in pair]
        return pack(pairs, self.width, self.compiled, phase)


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
    def steps(self) -> int | None:
        """Training steps of the fewest runs, over all of them."""
        if any(b.steps_per_run is None for b in self.batches):
            return None
        return sum((b.tuning_runs + b.confirmation_runs[0]) * (b.steps_per_run or 0) for b in self.batches)

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Wall-clock for the fewest and for the most runs."""
        if any(b.seconds_per_run is None for b in self.batches):
            return None
        fewest, most = (
            sum((b.tuning_runs + b.confirmation_runs[i]) * (b.seconds_per_run or 0) for b in self.batches)
            for i in range(2)
        )
        return fewest / self.num_workers, most / self.num_workers

    @property
    def memory(self) -> int | None:
        """Bytes of one worker at its peak, at the batch size that takes most; None where it is not known."""
        return max((b.memory for b in self.batches if b.memory is not None), default=None)

    @property
    def compositions(self) -> dict[int, dict[str, Any]]:
        return {b.batch_size: b.composition for b in self.batches}

    def as_json(self) -> dict[str, object]:
        sums = {"runs": self.runs, "steps": self.steps, "seconds": self.seconds, "memory": self.memory}
        return {**asdict(self), **sums}


@dataclass(frozen=True)
class Counts:
    """How many runs a phase has at one batch size, if no grid grows."""

    tuning: int
    fewest: int
    most: int
    smallest_phase: int


def count_runs(settings: Settings) -> Counts:
    rules, rates = 1 + len(settings.momentum), len(settings.lr)
    tuning = rates * (rules if settings.tune == "both" else 1) * settings.tuning_seeds
    # At equal rates all rules run on the seeds of the first stage; the selected rates are among them.
    fewest = (rates if settings.confirm_rates == "grid" else 1) * rules * settings.stages[0]
    most = fewest + rules * (settings.stages[-1] - settings.stages[0])
    return Counts(tuning, fewest, most, min(tuning, rules * settings.stages[0]))


@dataclass(frozen=True)
class Cost:
    """What a run takes: seconds, and bytes of memory where they are known."""

    seconds: float
    memory: int | None = None


def one_by_one(settings: Settings, measured: Mapping[int, tuple[int, Cost]] | None, num_workers: int) -> Plan:
    """The plan where every run is a chunk of its own; ``measured``: steps and cost of a run by batch size."""
    counts = count_runs(settings)
    batches = []
    for b in settings.batch_sizes:
        steps, cost = measured[b] if measured else (None, None)
        seconds, memory = (cost.seconds, cost.memory) if cost else (None, None)
        of_phases = (counts.tuning, (counts.fewest, counts.most))
        batches.append(BatchPlan(b, steps, 1, False, *of_phases, seconds, pairs_together=False, memory=memory))
    return Plan(tuple(batches), num_workers)


def in_words(seconds: float) -> str:
    """A duration for people: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_in_words(num_bytes: int) -> str:
    """Memory for people: 480 MB, 2.5 GB."""
    return f"{max(1, round(num_bytes / 1e6))} MB" if num_bytes < 999.5e6 else f"{num_bytes / 1e9:.1f} GB"
