"""``lightball.compare``: one call from a task to a verdict; and its plan alone."""

from __future__ import annotations

import math
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch

from lightball.errors import InputError, OutOfTime
from lightball.studies import request
from lightball.studies.comparison import Comparison
from lightball.studies.engines.devices import check_workers, choose_device
from lightball.studies.engines.job import Job
from lightball.studies.ledger import Ledger, Observer, Silent
from lightball.studies.plan import Plan, in_words
from lightball.studies.result import Result
from lightball.studies.result_json import as_json
from lightball.studies.runs import hash_of
from lightball.studies.settings import Settings, make
from lightball.studies.store import Store, study_file
from lightball.version import __version__
from lightball.workloads import Workload


def compare(
    task: str | Workload,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    settings: Settings | None = None,
    observer: Observer | None = None,
    on_plan: Callable[[str, Plan, Path], None] | None = None,
    deadline: float | None = None,
    keep_runs: bool = False,
    **options: Any,
) -> Result:
    """Does momentum have a value on this task? Paired, tuned on their own seeds, confirmed on fresh ones.

    Args:
        task: a bundled name (``digits``, ``digits-conv``), ``file.py:function``, or a :class:`Workload`; with
            ``engine="command"`` the command of a training script, see :mod:`lightball.studies.engines.command`.
        out: folder of the finished chunks; what it holds already is not computed again, and several processes may
            work on one folder. Default ``lightball-runs/<task>-<hash of what determines a run>``, so that a study with
            more stages or other margins finds the runs of the last one.
        device: ``auto``, ``cpu``, ``cuda`` or a torch device.
        workers: processes of one thread on the CPU, default as many as there are cores; scripts at a time, default 1.
        timeout: seconds after which a script is ended; its run has crashed.
        retry_failed: compute again what is stored of runs that crashed.
        settings: all options at once; default ``Settings()``.
        **options: single fields of :class:`Settings`, such as ``batch_sizes=(8, 32)``, which win.
        observer: told about progress.
        on_plan: told the task's name, the plan and the folder before anything runs.
        deadline: a ``time.time()`` after which nothing starts. With ``keep_runs`` runs in progress stop there; without,
            none starts that would not end before it by the plan's estimate. The same call goes on from what is stored.
        keep_runs: keep the curve of each run in ``OUT/runs``, see :func:`lightball.studies.curves.curves`, and while it
            is trained checkpoints, from which a run that was stopped or killed goes on; process engine.

    Returns:
        A frozen :class:`Result`.

    Raises:
        InputError: one line on what cannot be used.
        OutOfTime: the deadline came before the end; what is finished is stored.

    Source: the pairing and the question are those of arXiv:2307.15196, §6; the decision rule is that of
    :func:`lightball.stats.decide`.
    """
    start = time.perf_counter()
    settings = make(asdict(settings or Settings()), options)
    observer = observer or Silent()
    job = _prepare(task, settings, choose_device(device), check_workers(workers), timeout, keep_runs, deadline)
    basis = hash_of(job.basis)
    folder = Path(out) if out is not None else _default_folder(job.task, basis)
    with Store(folder, job.basis, _about(job), observer.say) as store:
        planned = job.make_plan(store.compositions)
        frozen = store.freeze(planned.compositions)
        if any(frozen[b] != composition for b, composition in planned.compositions.items()):
            planned = job.make_plan(frozen)  # another process was first
        asked = request.new(job.task, settings, planned, store.about, sys.argv)
        store.save_json(request.NAME, request.as_json(asked))
        if on_plan:
            on_plan(job.task, planned, folder)
        with closing(job.start(folder)) as engine:
            ledger = Ledger(planned, basis, engine, store, observer, retry_failed, deadline, stoppable=keep_runs)
            left = math.inf if deadline is None else deadline - time.time()
            try:
                batches = Comparison(settings, ledger, store).run()
            except OutOfTime:
                if not (ledger.computed or keep_runs):
                    _require_time(planned, left)
                raise
            finally:
                if ledger.computed or keep_runs:
                    _add_seconds(store, time.perf_counter() - start)
        seconds = time.perf_counter() - start
        runs = (ledger.computed, ledger.reused, str(folder), ledger.crashed)
        result = Result(job.task, settings, batches, seconds, *runs)
        store.save_json("result.json", as_json(result))
    return result


def plan(
    task: str | Workload,
    settings: Settings,
    *,
    device: str = "auto",
    workers: int | None = None,
    out: str | Path | None = None,
    keep_runs: bool = False,
) -> Plan:
    """What :func:`compare` with these arguments would say before it starts.

    Nothing runs but the steps that are measured, and nothing is written. Where the folder holds the study already, what
    was measured for it is not measured again.

    Raises:
        InputError: as of :func:`compare`; or the folder holds another study.
    """
    job = _prepare(task, settings, choose_device(device), check_workers(workers), None, keep_runs)
    folder = Path(out) if out is not None else _default_folder(job.task, hash_of(job.basis))
    there = study_file.find(folder)[0] if (folder / study_file.NAME).exists() else None
    if there is not None:
        study_file.require_same(folder, there["study"], job.basis)
    return job.make_plan(there["compositions"] if there is not None else {})


def _require_time(plan: Plan, left: float) -> None:
    """Refuse a budget that leaves too little for any run, with which the same command would never come further."""
    shortest = min((b.width * b.seconds_per_run for b in plan.batches if b.seconds_per_run is not None), default=0.0)
    if shortest > left:
        there_is = in_words(left) if left > 0 else "nothing"
        raise InputError(
            f"the time budget leaves {there_is} for runs, but the shortest takes about {in_words(shortest)}: give "
            "more time, or let runs stop and go on, with --engine process --keep-runs"
        )


def _add_seconds(store: Store, seconds: float) -> None:
    """Note the time of a command that computed runs, however it ended; nobody loses a run for want of it."""
    with suppress(InputError):
        before = (store.read_json(request.TIME) or {}).get("seconds", 0.0)
        store.save_json(request.TIME, {"seconds": before + seconds})


def _prepare(
    task: str | Workload,
    settings: Settings,
    device: str,
    workers: int | None,
    timeout: float | None,
    keep_runs: bool = False,
    deadline: float | None = None,
) -> Job:
    """The job of the engine that the settings name; each engine is imported where it is used."""
    if keep_runs and settings.engine != "process":
        raise InputError(
            f"keep-runs is on, but the {settings.engine} engine keeps nothing of a run but its result: use it with "
            "--engine process"
        )
    if timeout is not None and settings.engine != "command":
        raise InputError(f"timeout is {timeout:g}, but only scripts have one: use it with --engine command")
    if settings.engine == "command":
        from lightball.studies.engines import command

        if not isinstance(task, str):
            raise InputError(f"the task is a {type(task).__name__}, but the command engine needs a command as text")
        return command.prepare(task, settings, workers or 1, timeout)
    if settings.engine == "process":
        from lightball.studies.engines import process

        return process.prepare(task, settings, device, workers, keep_runs, deadline)
    from lightball.studies.engines import vectorised

    return vectorised.prepare(task, settings, device, workers)


def _default_folder(name: str, basis: str) -> Path:
    plain = re.sub(r"[^\w.-]+", "-", name)  # a name is free text, a folder is not
    return Path("lightball-runs") / f"{plain}-{basis[:8]}"


def _about(job: Job) -> Mapping[str, Any]:
    """What stands inside every file: what determines its numbers, and what made them."""
    versions = {
        "lightball": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
    return {"basis": job.basis, "versions": versions, "hardware": platform.machine(), "command": sys.argv}
