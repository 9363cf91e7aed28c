"""The vectorised engine: many small models at once, on all cores or on one GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lightball.dynamics import compiler_available
from lightball.errors import InputError, reason_of
from lightball.studies.engines.batch_trainer import BatchTrainer
from lightball.studies.engines.devices import num_cores
from lightball.studies.engines.job import Engine, Finished, Job
from lightball.studies.engines.memory import watch_peak
from lightball.studies.engines.pool import Crash, Pool
from lightball.studies.engines.tasks import OF_PROCESS, Task, open_task, reopen
from lightball.studies.plan import BatchPlan, Plan, count_runs
from lightball.studies.runs import Chunk, Outcome
from lightball.studies.settings import Settings
from lightball.workloads import Workload
from lightball.workloads.undisturbed import one_thread


def prepare(source: str | Workload, settings: Settings, device: str, num_workers: int | None) -> Job:
    """The job of training a workload in large batches of models.

    ``num_workers``: processes on the CPU, by default as many as there are cores; one on a GPU, where more would only
    compete.

    Raises:
        InputError: the workload cannot be trained so, or a setting belongs to another engine.
    """
    _check_settings(settings)
    task = open_task(source, settings, device)
    workers = 1 if device.startswith("cuda") else num_workers or num_cores()
    trainers = Trainers(task.workload, settings, device)

    def make_plan(compositions: Mapping[int, Mapping[str, Any]]) -> Plan:
        batches = (_batch_plan(settings, b, trainers, compositions.get(b)) for b in settings.batch_sizes)
        return Plan(tuple(batches), workers)

    def start(_: object) -> Engine:
        return InProcess(trainers) if workers == 1 else Workers(task, settings, workers)

    return Job(task.workload.name, task.basis, make_plan, start)


class Trainers:
    """A trainer for each batch size, made when it is first needed."""

    def __init__(self, workload: Workload, settings: Settings, device: str) -> None:
        self._arguments = (workload, settings, device)
        self._made: dict[int, BatchTrainer] = {}

    def __getitem__(self, batch_size: int) -> BatchTrainer:
        if batch_size not in self._made:
            workload, settings, device = self._arguments
            self._made[batch_size] = BatchTrainer(workload, settings, batch_size, device)
        return self._made[batch_size]


class InProcess:
    """Computes in this process, one chunk after the other, with one thread: bit for bit what a worker computes."""

    def __init__(self, trainers: Trainers) -> None:
        self._trainers = trainers

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        for chunk in chunks:
            try:
                with one_thread():
                    outcomes = self._trainers[chunk.batch_size].train(chunk)
            except InputError:
                raise
            except Exception as error:  # the user's own code runs here, and memory may end
                raise _cannot_compute(chunk, reason_of(error)) from error
            yield chunk, outcomes

    def close(self) -> None:
        pass


class Workers:
    """Computes in worker processes.

    A chunk that ends its worker three times ends the study: 28 runs that were never computed are no result.
    """

    def __init__(self, task: Task, settings: Settings, num_workers: int) -> None:
        self._pool: Pool[Chunk, list[Outcome]] = Pool(_start_worker, (task.for_workers, settings), num_workers)

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        for chunk, outcomes in self._pool.map(chunks):
            if isinstance(outcomes, Crash):
                raise _cannot_compute(chunk, outcomes.error)
            yield chunk, outcomes

    def close(self) -> None:
        self._pool.close()


def _cannot_compute(chunk: Chunk, reason: str) -> InputError:
    return InputError(
        f"{len(chunk.runs)} runs at batch size {chunk.batch_size} could not be computed: {reason} (if memory ran out "
        "use fewer --workers or smaller --batch-sizes, then run the same command again)"
    )


def _start_worker(sent: Any, settings: Settings) -> Callable[[Chunk], list[Outcome]]:
    trainers = Trainers(reopen(sent), settings, "cpu")
    return lambda chunk: trainers[chunk.batch_size].train(chunk)


def _batch_plan(
    settings: Settings, batch_size: int, trainers: Trainers, composition: Mapping[str, Any] | None
) -> BatchPlan:
    """What the folder has already stands: another width would be another rounding. What is measured here follows from
    shapes, not from timings, so that plans repeat."""
    counts = count_runs(settings)
    trainer = trainers[batch_size]
    if composition is None:
        compiled = trainer.compiles(counts.tuning + counts.fewest)
        # Not wider than a phase has runs: in a compiled chunk, missing runs are computed all the same.
        width = min(trainer.footprint.width, counts.smallest_phase)
        peak = watch_peak(trainer.device)
        with one_thread():
            seconds = trainer.seconds_per_run(width)
        composition = {"width": width, "compiled": compiled, "seconds_per_run": seconds, "memory": peak()}
    elif composition["compiled"] and not compiler_available():
        raise InputError(
            "the runs in this folder were compiled, but here is no C++ compiler that runs (g++ or $CXX): install one, "
            "or choose another folder with --out"
        )
    of_phases = (counts.tuning, (counts.fewest, counts.most))
    return BatchPlan(
        batch_size,
        trainer.num_steps,
        composition["width"],
        composition["compiled"],
        *of_phases,
        composition["seconds_per_run"],
        memory=composition.get("memory"),
    )


def _check_settings(settings: Settings) -> None:
    for name in OF_PROCESS:
        if getattr(settings, name) != getattr(Settings, name):
            raise InputError(
                f"{name.replace('_', '-')} is {getattr(settings, name)}, but the vectorised engine trains in float32, "
                "whole batches, without SVAG and clipping, and evaluates at the end: use --engine process"
            )
