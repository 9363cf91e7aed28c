"""Chunks and outcomes that nobody trained, for the tests of the store."""

from __future__ import annotations

import math
import multiprocessing
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightball.studies.runs import MEASURES, Chunk, Outcome, Phase, Run
from lightball.studies.store import Store

STUDY: dict[str, Any] = {"engine": "vectorised", "task": "digits", "settings": {"epochs": 10, "schedule": "constant"}}
ABOUT: dict[str, Any] = {"versions": {"lightball": "0.1"}, "hardware": "none", "command": ["lightball", "compare"]}
fork = multiprocessing.get_context("fork")


def chunk(seed: int = 1, runs: int = 2, batch_size: int = 8, phase: Phase = "tune") -> Chunk:
    """A chunk of SGD and SGDM and so on, on one seed."""
    return Chunk(tuple(Run(batch_size, 0.1 + seed, seed, 0.1 * i) for i in range(runs)), width=4, phase=phase)


def key(chunk: Chunk) -> str:
    return chunk.key("basis")


def outcome(run: Run, loss: float = 0.123456789, epochs: int = 3, error: str | None = None) -> Outcome:
    final = dict.fromkeys(MEASURES, 0.5) | {"train_loss": loss + run.momentum}
    return Outcome(
        run, tuple(2.0 / (i + 1) for i in range(epochs + 1)), dict.fromkeys(MEASURES, 2.0), final, None, error
    )


def outcomes(chunk: Chunk, **options: Any) -> list[Outcome]:
    return [outcome(run, **options) for run in chunk.runs]


def store(folder: Path, said: list[str] | None = None, lease: float = 60.0, study: dict[str, Any] = STUDY) -> Store:
    return Store(folder, study, ABOUT, said.append if said is not None else lambda line: None, lease)


def fill(folder: Path, chunks: Iterable[Chunk], **options: Any) -> None:
    """A folder in which these are finished."""
    with store(folder, **options) as there:
        for each in chunks:
            there.save(key(each), each, outcomes(each))


def backdate(paths: Iterable[Path], seconds: float = 100.0) -> None:
    """As if these had been written earlier."""
    for path in paths:
        modified = path.stat().st_mtime_ns - round(seconds * 1e9)
        os.utime(path, ns=(modified, modified))


def files(folder: Path) -> list[Path]:
    return sorted((folder / "chunks").iterdir())


def bits(value: Outcome) -> tuple[object, ...]:
    """What two outcomes must have in common to be equal in every bit; NaN is NaN."""

    def number(x: float | None) -> object:
        return x if x is None else "nan" if math.isnan(x) else struct.pack("<d", x)

    measures = [(name, number(part[name])) for part in (value.untrained, value.final) for name in MEASURES]
    return value.run, tuple(map(number, value.curve)), tuple(measures), value.failed_at, value.error, value.failed


def in_process(function: Callable[..., None], *arguments: Any) -> Any:
    """A process of its own that runs the function; its exit code is 0 where nothing was raised."""
    process = fork.Process(target=function, args=arguments)
    process.start()
    return process
