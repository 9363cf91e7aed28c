"""``lightball.compare``: one call from a task to a verdict."""

from __future__ import annotations

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

from lightball.errors import InputError
from lightball.studies import request
from lightball.studies.comparison import Comparison
from lightball.studies.engines.devices import check_workers, choose_device
from lightball.studies.engines.job import Job
from lightball.studies.ledger import Ledger, Observer, Silent
from lightball.studies.plan import Plan
from lightball.studies.result import Result
from lightball.studies.result_json import as_json
from lightball.studies.runs import hash_of
from lightball.studies.settings import Settings, make
from lightball.studies.store import Store
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

    Returns:
        A frozen :class:`Result`.

    Raises:
        InputError: one line on what cannot be used.

    Source: the pairing and the question are those of arXiv:2307.15196, §6; the decision rule is that of
    :func:`lightball.stats.decide`.
    """
    start = time.perf_counter()
    settings = make(asdict(settings or Settings()), options)
    observer = observer or Silent()
    job = _prepare(task, settings, choose_device(device), check_workers(workers), timeout)
    basis = hash_of(job.basis)
    folder = Path(out) if out is not None else _default_folder(job.task, basis)
    with Store(folder, job.basis, _about(job), observer.say) as store:
        plan = job.make_plan(store.compositions)
        frozen = store.freeze(plan.compositions)
        if any(frozen[b] != composition for b, composition in plan.compositions.items()):
            plan = job.make_plan(frozen)  # another process was first
        asked = request.new(job.task, settings, plan, store.about, sys.argv)
        store.save_json(request.NAME, request.as_json(asked))
        if on_plan:
            on_plan(job.task, plan, folder)
        with closing(job.start(folder)) as engine:
            ledger = Ledger(plan, basis, engine, store, observer, retry_failed)
            try:
                batches = Comparison(settings, ledger, store).run()
            finally:
                if ledger.computed:
                    _add_seconds(store, time.perf_counter() - start)
        seconds = time.perf_counter() - start
        runs = (ledger.computed, ledger.reused, str(folder), ledger.crashed)
        result = Result(job.task, settings, batches, seconds, *runs)
        store.save_json("result.json", as_json(result))
    return result


def _add_seconds(store: Store, seconds: float) -> None:
    """Note the time of a command that computed runs, however it ended; nobody loses a run for want of it."""
    with suppress(InputError):
        before = (store.read_json(request.TIME) or {}).get("seconds", 0.0)
        store.save_json(request.TIME, {"seconds": before + seconds})


def _prepare(task: str | Workload, settings: Settings, device: str, workers: int | None, timeout: float | None) -> Job:
    """The job of the engine that the settings name; each engine is imported where it is used."""
    if timeout is not None and settings.engine != "command":
        raise InputError(f"timeout is {timeout:g}, but only scripts have one: use it with --engine command")
    if settings.engine == "command":
        from lightball.studies.engines import command

        if not isinstance(task, str):
            raise InputError(f"the task is a {type(task).__name__}, but the command engine needs a command as text")
        return command.prepare(task, settings, workers or 1, timeout)
    if settings.engine == "process":
        from lightball.studies.engines import process

        return process.prepare(task, settings, device, workers)
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
