"""The process engine: any model, one at a time in each worker process, by the plain loop of ``lightball.training``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lightball.errors import InputError, reason_of
from lightball.oracles import Sampling
from lightball.studies.engines.devices import num_cores
from lightball.studies.engines.job import Finished, Job
from lightball.studies.engines.pool import Crash, Pool
from lightball.studies.engines.tasks import Task, open_task, reopen
from lightball.studies.plan import Plan, one_by_one
from lightball.studies.runs import MEASURES, Chunk, Measure, Outcome, Run, crashed
from lightball.studies.settings import Settings
from lightball.training import History, Point, Recipe, train
from lightball.workloads import Data, Workload
from lightball.workloads.undisturbed import one_thread

_MEASURED_STEPS = 4


def prepare(source: str | Workload, settings: Settings, device: str, num_workers: int | None) -> Job:
    """The job of training one model at a time; ``num_workers`` as many as there are cores by default, one on a GPU.

    Raises:
        InputError: the workload cannot be trained, or a batch does not fit the data.
    """
    task = open_task(source, settings, device)
    workers = num_workers or (1 if device.startswith("cuda") else num_cores())
    steps = {b: _num_steps(task.workload, settings, b) for b in settings.batch_sizes}

    def make_plan(compositions: Mapping[int, Mapping[str, Any]]) -> Plan:
        known = {b: compositions[b]["seconds_per_run"] for b in settings.batch_sizes if b in compositions}
        with one_thread():
            seconds = {b: known.get(b) or _seconds_per_run(task.workload, settings, b, device) for b in steps}
        return one_by_one(settings, {b: (steps[b], seconds[b]) for b in steps}, workers)

    return Job(task.workload.name, task.basis, make_plan, lambda _: Processes(task, settings, device, workers))


class Processes:
    """Computes one run a worker. A worker that dies is replaced and its run tried twice more; then it has crashed."""

    def __init__(self, task: Task, settings: Settings, device: str, num_workers: int) -> None:
        arguments = (task.for_workers, settings, device)
        self._pool: Pool[Chunk, list[Outcome]] = Pool(_start_worker, arguments, num_workers)

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        for chunk, outcomes in self._pool.map(chunks):
            if isinstance(outcomes, Crash):
                yield chunk, [crashed(run, outcomes.error) for run in chunk.runs]
            else:
                yield chunk, outcomes

    def close(self) -> None:
        self._pool.close()


def _start_worker(sent: Any, settings: Settings, device: str) -> Callable[[Chunk], list[Outcome]]:
    workload = reopen(sent)
    return lambda chunk: [train_run(workload, settings, run, device) for run in chunk.runs]


def train_run(workload: Workload, settings: Settings, run: Run, device: str) -> Outcome:
    """The outcome of one run."""
    best = settings.checkpoint == "best"
    history = train(workload, recipe(settings, run), run.seed, device=device, accuracies="best" if best else "ends")
    first, last = history.points[0], history.points[-1]
    final: dict[Measure, float] = dict.fromkeys(MEASURES, math.nan)
    if history.failed_at is None:
        final = {**_values(history.best if best else last), "train_loss": last.train_loss}
    return Outcome(run, _curve(history, settings.epochs), _values(first), final, history.failed_at)


def recipe(settings: Settings, run: Run) -> Recipe:
    """How a run of a study is trained."""
    return Recipe(
        batch_size=run.batch_size,
        effective_lr=run.effective_lr,
        momentum=run.momentum,
        epochs=settings.epochs,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        eval_every=settings.eval_every or None,
        sampling=settings.sampling,
        drop_last=settings.drop_last,
        precision=settings.precision,
        accumulate=settings.accumulate,
        ell=settings.ell,
        batch_norm=settings.batch_norm,
        clip_norm=settings.clip_norm,
    )


def _values(point: Point) -> dict[Measure, float]:
    values: dict[Measure, float] = {"train_loss": point.train_loss}
    values["validation_accuracy"] = math.nan if point.validation_accuracy is None else point.validation_accuracy
    values["test_accuracy"] = math.nan if point.test_accuracy is None else point.test_accuracy
    return values


def _curve(history: History, epochs: int) -> tuple[float, ...]:
    """The loss before training and after each epoch, NaN once it has failed; interpolated between evaluations."""
    at = [point.epoch for point in history.points]
    losses = np.interp(range(epochs + 1), at, [point.train_loss for point in history.points], right=math.nan)
    return tuple(losses.tolist())


def _num_steps(workload: Workload, settings: Settings, batch_size: int) -> int:
    sampling = Sampling(len(workload.train), batch_size, settings.sampling, settings.drop_last)
    return settings.ell * settings.epochs * sampling.steps_per_epoch


def _seconds_per_run(workload: Workload, settings: Settings, batch_size: int, device: str) -> float:
    """What a run takes, from a few steps and evaluations on some examples; rather too much than too little."""
    num_examples = min(len(workload.train), _MEASURED_STEPS * batch_size)

    def some(data: Data) -> Data:
        return Data(data.inputs[:num_examples], data.targets[:num_examples])

    small = replace(
        workload, train=some(workload.train), validation=some(workload.validation), test=some(workload.test)
    )
    run = Run(batch_size, min(settings.lr), seed=0, momentum=settings.momentum[0])
    times = [time.perf_counter()]
    try:
        train(
            small,
            replace(recipe(settings, run), epochs=1),
            run.seed,
            device=device,
            on_point=lambda _: times.append(time.perf_counter()),
        )
    except InputError:
        raise
    except Exception as error:  # the user's own code runs here, and memory may end
        raise InputError(f"the task cannot be trained at batch size {batch_size}: {reason_of(error)}") from error
    per_example = (times[1] - times[0]) / sum(map(len, (small.train, small.validation, small.test)))
    per_step = (times[-1] - times[1]) / _num_steps(small, replace(settings, epochs=1), batch_size)
    evaluated = (settings.epochs + 1) * len(workload.train) + 2 * (len(workload.validation) + len(workload.test))
    return _num_steps(workload, settings, batch_size) * per_step + evaluated * per_example
