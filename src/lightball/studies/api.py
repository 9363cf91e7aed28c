"""``lightball.compare``: one call from a task to a verdict."""

from __future__ import annotations

import platform
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch

from lightball import __version__
from lightball.studies.comparison import Comparison, Observer
from lightball.studies.engine import Engine, InProcess, Trainers, Workers, choose_device, choose_workers
from lightball.studies.plan import Plan, make_plan
from lightball.studies.result import Result
from lightball.studies.result_json import as_json
from lightball.studies.runs import hash_of
from lightball.studies.settings import Settings, make
from lightball.studies.store import Store
from lightball.workloads import Workload, check, fingerprint, identity, load

# Raised whenever the arithmetic of a run changes, so that stored runs of older arithmetic are not mixed in.
NUMERICS = 1
# What a run does not depend on, or names itself: which runs there are, and what is made of them.
_ANALYSIS = (
    "batch_sizes",
    "lr",
    "momentum",
    "stages",
    "tuning_seeds",
    "margin_loss",
    "margin_accuracy",
    "select",
    "max_extensions",
    "compile",
)


class Silent:
    """An observer that says nothing."""

    def begin(self, phase: str, work: float) -> None: ...

    def advance(self, work: float) -> None: ...


def compare(
    task: str | Workload,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    settings: Settings | None = None,
    observer: Observer | None = None,
    on_plan: Callable[[Plan, Path], None] | None = None,
    **options: Any,
) -> Result:
    """Does momentum have a value on this task? Paired, tuned on their own seeds, confirmed on fresh ones.

    Args:
        task: a bundled name (``digits``, ``digits-conv``), ``file.py:function``, or a :class:`Workload`.
        out: folder of the finished chunks; what it holds already is not computed again. Default
            ``lightball-runs/<task>-<hash of what determines a run>``, so that a study with more stages or
            other margins finds the runs of the last one.
        device: ``auto``, ``cpu``, ``cuda`` or a torch device.
        workers: processes of one thread on the CPU; default as many as there are cores.
        settings: all options at once; default ``Settings()``.
        **options: single fields of :class:`Settings`, such as ``batch_sizes=(8, 32)``, which win.
        observer, on_plan: told about progress, and about the plan before anything runs.

    Returns:
        A frozen :class:`Result`.

    Raises:
        InputError: one line on what cannot be used.

    Source: the pairing and the question are those of arXiv:2307.15196, §6; the decision rule is that of
    :func:`lightball.stats.decide`.
    """
    start = time.perf_counter()
    settings = make(asdict(settings or Settings()), options)
    device = choose_device(device)
    num_workers = choose_workers(workers, device)
    workload = load(task) if isinstance(task, str) else check(task)
    trainers = Trainers(workload, settings, device)
    about = _about(workload, settings, device)
    folder = Path(out) if out is not None else _default_folder(workload.name, about)
    store = Store(folder, about)
    plan = make_plan(settings, trainers, num_workers)
    store.prepare()
    store.save_json("plan.json", {**about, "plan": plan.as_json()})
    if on_plan:
        on_plan(plan, folder)
    engine: Engine = (
        InProcess(trainers) if num_workers == 1 else Workers(task, settings, num_workers, identity(workload))
    )
    with closing(engine):
        study = Comparison(settings, plan, _run_basis(about), engine, store, observer or Silent())
        batches = study.run()
    seconds = time.perf_counter() - start
    result = Result(workload.name, settings, batches, seconds, study.computed, study.reused, str(folder))
    store.save_json("result.json", as_json(result))
    return result


def _default_folder(name: str, about: dict[str, Any]) -> Path:
    plain = re.sub(r"[^\w.-]+", "-", name)  # a name is free text, a folder is not
    return Path("lightball-runs") / f"{plain}-{_run_basis(about)[:8]}"


def _about(workload: Workload, settings: Settings, device: str) -> dict[str, Any]:
    """What stands inside every file of a study; ``basis`` is what determines its numbers."""
    basis = {
        "task": workload.name,
        "fingerprint": fingerprint(workload),
        "settings": asdict(settings),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "numerics": NUMERICS,
        "torch": torch.__version__,
    }
    versions = {"lightball": __version__, "python": platform.python_version(), "numpy": numpy.__version__}
    return {"basis": basis, "versions": versions, "hardware": platform.machine(), "command": sys.argv}


def _run_basis(about: dict[str, Any]) -> str:
    """A hash of what determines the outcome of a run, apart from the run itself and its chunk."""
    basis = about["basis"]
    return hash_of({**basis, "settings": {k: v for k, v in basis["settings"].items() if k not in _ANALYSIS}})
