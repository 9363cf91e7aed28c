"""A workload and what determines the outcome of its runs; how it gets into worker processes."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch

from lightball.errors import InputError
from lightball.studies.engines.devices import device_name
from lightball.studies.settings import Settings
from lightball.workloads import BUNDLED, Workload, check, fingerprint, identity, load

# Raised whenever the arithmetic of a run changes, so that stored runs of older arithmetic are not mixed in.
NUMERICS = 2
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
    "tune",
    "confirm_rates",
    "engine",
)
_LATER = ("num_steps", "decay", "in_backward")  # not named where they do nothing: folders from before them stay good
OF_PROCESS = ("precision", "accumulate", "ell", "batch_norm", "clip_norm", "eval_every", "checkpoint", *_LATER)

Sent = tuple[str | Workload, bool, str]
"""What goes to a worker: the name or the workload, whether it is trained many at once, and its identity here."""


@dataclass(frozen=True)
class Task:
    """A checked workload; ``basis`` is what determines the outcome of a run, apart from the run itself."""

    workload: Workload
    basis: Mapping[str, Any]
    for_workers: Sent


def open_task(source: str | Workload, settings: Settings, device: str) -> Task:
    """The task of a name, a ``file.py:function`` or a workload.

    Raises:
        InputError: it cannot be trained by the engine of the settings.
    """
    together = settings.engine == "vectorised"
    workload = load(source, together) if isinstance(source, str) else check(source, together)
    basis = {
        "engine": settings.engine,
        "task": workload.name,
        "source": source_of(source),
        "fingerprint": fingerprint(workload, together),
        "settings": _of_arithmetic(settings),
        "device": device_name(device),
        "numerics": NUMERICS,
        "torch": torch.__version__,
    }
    return Task(workload, basis, (source, together, identity(workload)))


def _of_arithmetic(settings: Settings) -> dict[str, Any]:
    """The settings that the outcome of a run depends on, by name."""
    ignored = {*_ANALYSIS}
    if settings.engine == "vectorised":
        ignored |= {*OF_PROCESS}
    else:
        ignored |= {name for name in _LATER if getattr(settings, name) == getattr(Settings, name)}
        ignored |= {"compile"} if settings.compile != "on" else set()
    return {name: value for name, value in asdict(settings).items() if name not in ignored}


def reopen(sent: Sent) -> Workload:
    """The workload in a worker process.

    A workload given by name is loaded anew in each worker; one given as an object was sent to it. Either way it must
    be the one that the parent has: a task that makes other data each time would be compared with itself.

    Raises:
        InputError: it is another one.
    """
    source, together, expected = sent
    workload = load(source, together) if isinstance(source, str) else source
    if identity(workload) != expected:
        raise InputError(
            "the task differs each time it is made (its data or initial weights): seed what is random in it"
        )
    return workload


def source_of(source: str | Workload) -> str:
    """A hash of the code of a task, as far as it can be seen: its file, or the functions of a workload.

    What they import is not in it; the fingerprint sees what that does to weights and losses.
    """
    if isinstance(source, Workload):
        functions: tuple[Callable[..., Any], ...] = (source.model, source.loss, source.metric)
        functions += () if source.draw is None else (source.draw,)
        return _hash("\n".join(map(_code, functions)).encode())
    if source in BUNDLED:
        return _hash(source.encode())
    path, _, function = source.rpartition(":")
    return _hash(Path(path).read_bytes() + function.encode())


def _code(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed into a shell, made by exec or partial, or written in C
        if is_dataclass(function):  # what its fields say, without where in memory that lies
            return re.sub(r" at 0x[0-9a-f]+", "", repr(function))
        return getattr(function, "__qualname__", type(function).__name__)


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
