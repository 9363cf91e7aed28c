"""The process engine: any model, one at a time in each worker process, by the plain loop of ``lightball.training``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lightball.errors import OutOfTime
from lightball.studies.engines.devices import num_cores
from lightball.studies.engines.job import Finished, Job
from lightball.studies.engines.kept_runs import CHECKPOINT_SECONDS, Kept, drop_checkpoints, runs_folder, wait_until_free
from lightball.studies.engines.measuring import measure_run, num_steps, steps_per_epoch
from lightball.studies.engines.pool import Crash, Pool
from lightball.studies.engines.tasks import Task, open_task, reopen
from lightball.studies.plan import Cost, Plan, one_by_one
from lightball.studies.runs import MEASURES, Chunk, Measure, Outcome, Run, crashed, hash_of
from lightball.studies.settings import Settings
from lightball.training import History, Point, Recipe, train
from lightball.training.measuring import Accuracies
from lightball.training.ranks import Ranks
from lightball.workloads import Workload
from lightball.workloads.undisturbed import one_thread

_LAST = 5  # evaluations of which the median is taken


def prepare(
    source: str | Workload,
    settings: Settings,
    device: str,
    num_workers: int | None,
    keep_runs: bool = False,
    deadline: float | None = None,
) -> Job:
    """The job of training one model at a time; ``num_workers`` as many as there are cores by default, one on a GPU.

    Args:
        keep_runs: keep the curve of each run, and checkpoints while it is trained, in the folder of the study.
        deadline: a ``time.time()`` at which runs that are kept stop.

    Raises:
        InputError: the workload cannot be trained, or a batch does not fit the data.
    """
    task = open_task(source, settings, device)
    workers = num_workers or (1 if device.startswith("cuda") else num_cores())
    recipes = {b: recipe(settings, Run(b, min(settings.lr), 0, max(settings.momentum))) for b in settings.batch_sizes}
    steps = {b: num_steps(task.workload, recipes[b]) for b in settings.batch_sizes}

    def cost(batch_size: int, known: Mapping[str, Any] | None) -> Cost:
        if known is not None:
            return Cost(known["seconds_per_run"], known.get("memory"))
        return measure_run(task.workload, recipes[batch_size], measured(settings, keep_runs), device)

    def make_plan(compositions: Mapping[int, Mapping[str, Any]]) -> Plan:
        with one_thread():
            costs = {b: cost(b, compositions.get(b)) for b in steps}
        return one_by_one(settings, {b: (steps[b], costs[b]) for b in steps}, workers)

    def start(folder: Path) -> Processes:
        kept = Kept(runs_folder(folder), hash_of(task.basis), deadline) if keep_runs else None
        return Processes(task, settings, device, workers, kept)

    return Job(task.workload.name, task.basis, make_plan, start)


class Processes:
    """Computes one run a worker. A worker that dies is replaced and its run tried twice more; then it has crashed.

    With ``kept``, what is tried again goes on from where it was.
    """

    def __init__(self, task: Task, settings: Settings, device: str, num_workers: int, kept: Kept | None = None) -> None:
        self._kept = kept
        arguments = (task.for_workers, settings, device, kept)
        self._pool: Pool[Chunk, list[Outcome] | None] = Pool(_start_worker, arguments, num_workers)

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        """As :meth:`lightball.studies.engines.job.Engine.compute`.

        Raises:
            OutOfTime: at the end, if runs were stopped at the deadline.
        """
        stopped = 0
        for chunk, outcomes in self._pool.map(chunks):
            if isinstance(outcomes, Crash):
                yield chunk, [crashed(run, outcomes.error) for run in chunk.runs]
            elif outcomes is None:
                stopped += 1
            else:
                yield chunk, outcomes
                if self._kept is not None:  # only now, when they are stored
                    drop_checkpoints(self._kept.of(chunk))
        if stopped:
            raise OutOfTime(f"{stopped} runs were stopped, and go on from their checkpoints")

    def close(self) -> None:
        self._pool.close()


def _start_worker(
    sent: Any, settings: Settings, device: str, kept: Kept | None
) -> Callable[[Chunk], list[Outcome] | None]:
    workload = reopen(sent)

    def compute(chunk: Chunk) -> list[Outcome] | None:
        if kept is None:
            return [outcome for run in chunk.runs if (outcome := train_run(workload, settings, run, device))]
        (run,) = chunk.runs
        folder = kept.of(chunk)
        wait_until_free(folder)
        seconds = kept.checkpoint_seconds
        outcome = train_run(workload, settings, run, device, folder, kept.deadline, checkpoint_seconds=seconds)
        return None if outcome is None else [outcome]

    return compute


def train_run(
    workload: Workload,
    settings: Settings,
    run: Run,
    device: str,
    folder: Path | None = None,
    deadline: float | None = None,
    ranks: Ranks | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Outcome | None:
    """The outcome of one run; None if the deadline, a ``time.time()``, came before its end.

    Args:
        folder: keeps its curve and its checkpoints, from which the same call goes on.
        checkpoint_seconds: between checkpoints.
        ranks: the processes that train it together; all of them make the same call.
    """
    try:
        history = train(
            workload,
            recipe(settings, run),
            run.seed,
            device=device,
            folder=folder,
            checkpoint_seconds=None if folder is None else checkpoint_seconds,
            accuracies=measured(settings, folder is not None),
            deadline=deadline,
            ranks=ranks,
        )
    except OutOfTime:
        return None
    first, last = history.points[0], history.points[-1]
    final: dict[Measure, float] = dict.fromkeys(MEASURES, math.nan)
    if history.failed_at is None:
        final = {**_accuracies(history, settings), "train_loss": last.train_loss}
    return Outcome(run, _curve(history, _num_epochs(workload, settings, run)), _values(first), final, history.failed_at)


def recipe(settings: Settings, run: Run) -> Recipe:
    """How a run of a study is trained."""
    return Recipe(
        batch_size=run.batch_size,
        effective_lr=run.effective_lr,
        momentum=run.momentum,
        epochs=settings.epochs,
        num_steps=settings.num_steps or None,
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        schedule=settings.schedule,
        eval_every=settings.eval_every or None,
        sampling=settings.sampling,
        drop_last=settings.drop_last,
        precision=settings.precision,
        accumulate=settings.accumulate,
        ell=settings.ell,
        batch_norm=settings.batch_norm,
        clip_norm=settings.clip_norm,
        in_backward=settings.in_backward,
        compile=settings.compile == "on",
    )


def measured(settings: Settings, kept: bool) -> Accuracies:
    """When a run measures accuracies: as often as its result needs, and for a curve that is kept at every point.

    The best checkpoint needs test accuracy only where validation is better than before, also in a curve.
    """
    if settings.checkpoint == "best":
        return "best"
    return "always" if kept or settings.checkpoint == "median" else "ends"


def _accuracies(history: History, settings: Settings) -> dict[Measure, float]:
    """Those of the checkpoint that counts."""
    if settings.checkpoint == "median":
        points = [_values(point) for point in history.points[1:][-_LAST:]]
        return {name: median(point[name] for point in points) for name in MEASURES}
    return _values(history.best if settings.checkpoint == "best" else history.points[-1])


def _values(point: Point) -> dict[Measure, float]:
    values: dict[Measure, float] = {"train_loss": point.train_loss}
    values["validation_accuracy"] = math.nan if point.validation_accuracy is None else point.validation_accuracy
    values["test_accuracy"] = math.nan if point.test_accuracy is None else point.test_accuracy
    return values


def _num_epochs(workload: Workload, settings: Settings, run: Run) -> float:
    if not settings.num_steps:
        return settings.epochs
    return settings.num_steps / steps_per_epoch(workload, recipe(settings, run))


def _curve(history: History, epochs: float) -> tuple[float, ...]:
    """The loss before training, after each whole epoch and at the end, NaN once it has failed; interpolated between
    evaluations."""
    wanted = sorted({*range(math.floor(epochs) + 1), epochs})
    at = [point.epoch for point in history.points]
    losses = np.interp(wanted, at, [point.train_loss for point in history.points], right=math.nan)
    return tuple(losses.tolist())
