"""An experiment is made of parts, each a paired comparison in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightball.errors import OutOfTime
from lightball.reproduce.scales import Scale
from lightball.studies import api, request
from lightball.studies.ledger import Observer, Silent
from lightball.studies.plan import Plan
from lightball.studies.settings import Settings
from lightball.studies.study import Study, read_study
from lightball.workloads import Workload

__all__ = ["Part", "PartPlan", "Progressed", "Scale", "plan_parts", "read_parts", "run_parts"]

OnPlan = Callable[[str, Plan, Path], None]


@dataclass(frozen=True)
class Part:
    """One comparison of an experiment; its name is that of its folder. The workload is made when it is needed."""

    name: str
    workload: Callable[[], Workload]
    settings: Settings


@dataclass(frozen=True)
class PartPlan:
    """What a part will cost."""

    name: str
    plan: Plan


@dataclass(frozen=True)
class Progressed:
    """How far an experiment is.

    ``studies`` has the parts of which a run is finished, by name and in their order; ``finished``: all parts are done.
    """

    studies: Mapping[str, Study]
    finished: bool


def plan_parts(
    parts: Sequence[Part],
    *,
    out: str | Path,
    device: str = "auto",
    workers: int | None = None,
    keep_runs: bool = False,
) -> list[PartPlan]:
    """What each part will cost, from measured steps; nothing else is run, and nothing is written.

    Raises:
        InputError: a workload or a setting that cannot be used.
    """

    def plan(part: Part) -> Plan:
        folder = Path(out) / part.name
        workload = part.workload()
        return api.plan(workload, part.settings, device=device, workers=workers, out=folder, keep_runs=keep_runs)

    return [PartPlan(part.name, plan(part)) for part in parts]


def run_parts(
    parts: Sequence[Part],
    *,
    out: str | Path,
    device: str = "auto",
    workers: int | None = None,
    deadline: float | None = None,
    observer: Observer | None = None,
    on_plan: OnPlan | None = None,
    keep_runs: bool = False,
) -> Progressed:
    """Run the comparisons one after the other, as far as time allows; what is finished in ``out`` is not run again.

    Args:
        out: each part has a folder of its name there.
        deadline: a ``time.time()`` after which nothing is started.
        observer: told about progress, with the name of the part.
        on_plan: told the task's name, the plan and the folder of each part before it begins.
        keep_runs: keep each run's curve, and checkpoints while it runs; see :func:`lightball.compare`.

    Raises:
        InputError: one line on what cannot be used.
    """

    def begin(task: str, plan: Plan, folder: Path) -> None:
        if on_plan is not None:
            on_plan(task, plan, folder)
        later = folder.name != parts[0].name  # of the first part, compare says that the time is too short
        if later and not keep_runs and deadline is not None and time.time() + _shortest(plan) >= deadline:
            raise OutOfTime(f"the time budget is spent before {folder.name}")

    try:
        for part in parts:
            api.compare(
                part.workload(),
                out=Path(out) / part.name,
                device=device,
                workers=workers,
                settings=part.settings,
                observer=_OfPart(part.name, observer or Silent()),
                on_plan=begin,
                deadline=deadline,
                keep_runs=keep_runs,
            )
    except OutOfTime:
        pass
    return read_parts(parts, out=out)


def _shortest(plan: Plan) -> float:
    """Seconds of the shortest run."""
    return min(batch.seconds_per_run or 0.0 for batch in plan.batches)


def read_parts(parts: Sequence[Part], *, out: str | Path) -> Progressed:
    """What is finished of the parts in a folder; no run is changed.

    Raises:
        InputError: a file cannot be read.
    """
    folders = {part.name: Path(out) / part.name for part in parts}
    studies = {name: read_study(folder) for name, folder in folders.items() if _holds_runs(folder)}
    finished = len(studies) == len(parts) and all(study.finished for study in studies.values())
    return Progressed(studies, finished)


def _holds_runs(folder: Path) -> bool:
    return (folder / request.NAME).exists() and any(folder.glob("chunks/*.parquet"))


@dataclass(frozen=True)
class _OfPart:
    """An observer that says which part a phase belongs to."""

    name: str
    observer: Observer

    def begin(self, phase: str, work: float) -> None:
        self.observer.begin(f"{self.name}: {phase}", work)

    def advance(self, work: float) -> None:
        self.observer.advance(work)

    def say(self, message: str) -> None:
        self.observer.say(f"{self.name}: {message}")
