"""Checkpoints on disk: a folder each, which appears only when it is complete and flushed.

``step-000123/`` holds ``tensors.safetensors`` and ``state.json``; the latter has a digest of both, by which damage is
found that leaves them readable.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightball.errors import InputError, reason_of
from lightball.training.writing import writing

FORMAT = 1
KEPT = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """``asked`` is what the run was asked to do, ``values`` and ``tensors`` are how far it came."""

    asked: dict[str, Any]
    values: dict[str, Any]
    tensors: dict[str, Tensor]


def prepare(folder: Path) -> None:
    """Create the folder; remove what a killed process left half-written.

    Raises:
        InputError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.tmp"):
            shutil.rmtree(path)
        probe = folder / f"{uuid.uuid4().hex}.tmp"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise InputError(
            f"cannot write to the folder {str(folder)!r}: {error.strerror or reason_of(error)}; choose another"
        ) from error


def save(folder: Path, step: int, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the last two are kept. Cost: a copy of the tensors in memory, and writing them.

    Raises:
        InputError: it cannot be written, say because the disk is full; what was written before stays.
    """
    path, temporary = folder / f"step-{step:06d}", folder / f"{uuid.uuid4().hex}.tmp"
    try:
        with writing("the checkpoint", path):
            temporary.mkdir()
            _write(temporary, checkpoint)
            if path.exists():  # damaged, or the run would have gone on from it
                shutil.rmtree(path)
            temporary.replace(path)
            _flush(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(folder, step)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read; None if there is none. A damaged one is named in a warning.

    Raises:
        InputError: it was written in another format.
    """
    for _, path in sorted(_steps(folder), reverse=True):
        try:
            return _read(path)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            warnings.warn(
                f"the checkpoint {str(path)!r} is damaged ({reason_of(error)}); going on from the one before it, or "
                "from the beginning if there is none",
                stacklevel=2,
            )
    return None


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    # Clones, because safetensors takes neither memory that tensors share nor what is not contiguous.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in checkpoint.tensors.items()
    }
    save_file(tensors, folder / _TENSORS)
    state: dict[str, Any] = {
        "format": FORMAT,
        "versions": {
            "lightball": version("lightball"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "asked": checkpoint.asked,
        "values": checkpoint.values,
    }
    state["digest"] = _digest(folder / _TENSORS, state)
    (folder / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    for path in (folder / _TENSORS, folder / _STATE, folder):
        _flush(path)


def _read(folder: Path) -> Checkpoint:
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if state["format"] != FORMAT:
        raise InputError(
            f"the checkpoint {str(folder)!r} has format {state['format']}, but this version of lightball reads "
            f"{FORMAT}: go on with lightball {state['versions']['lightball']}, or choose another folder"
        )
    if state.pop("digest") != _digest(folder / _TENSORS, state):
        raise ValueError("its digest does not match what it holds")
    return Checkpoint(state["asked"], state["values"], load_file(folder / _TENSORS))


def _digest(tensors: Path, state: Mapping[str, Any]) -> str:
    with tensors.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b")
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def _flush(path: Path) -> None:
    """Have the system write a file, or the entries of a folder, to the disk."""
    if path.is_dir() and os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _steps(folder: Path) -> list[tuple[int, Path]]:
    names = [(path.name.removeprefix("step-"), path) for path in folder.glob("step-*")]
    return [(int(number), path) for number, path in names if number.isdecimal()]


def _prune(folder: Path, step: int) -> None:
    """Keep the last two up to ``step``; those after it are the damaged ones that the run did not go on from."""
    steps = sorted(_steps(folder))
    kept = [path for number, path in steps if number <= step][-KEPT:]
    for _, path in steps:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
