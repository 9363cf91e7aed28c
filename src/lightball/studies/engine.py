"""Engines compute chunks; the vectorised one trains many models at once, on all cores or on one GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from lightball.errors import InputError, reason_of
from lightball.studies.runs import Chunk, Outcome
from lightball.studies.settings import Settings
from lightball.studies.training import BatchTrainer
from lightball.workloads import Workload, identity, load

Finished = tuple[Chunk, list[Outcome]]


class Engine(Protocol):
    """Computes chunks and hands each over as soon as it is finished, in any order."""

    def compute(self, chunks: Sequence[Chunk]) -> Iterator[Finished]: ...

    def close(self) -> None:
        """Stop at once; what is in flight is dropped."""
        ...


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

    def compute(self, chunks: Sequence[Chunk]) -> Iterator[Finished]:
        for chunk in chunks:
            with one_thread():
                outcomes = self._trainers[chunk.batch_size].train(chunk)
            yield chunk, outcomes

    def close(self) -> None:
        pass


class Workers:
    """Computes in worker processes of one thread each.

    One thread, because two OpenMP pools that spin on the same cores slow each other down tenfold. A workload given
    by name is loaded anew in each worker; one given as an object is sent to it. Either way its identity must be
    the ``expected`` one: a task that makes other data each time would be compared with itself.
    """

    def __init__(self, source: str | Workload, settings: Settings, num_workers: int, expected: str) -> None:
        from loky import ProcessPoolExecutor

        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1")
        self._pool = ProcessPoolExecutor(
            num_workers, initializer=_start_worker, initargs=(source, settings, expected), env=one_thread
        )

    def compute(self, chunks: Sequence[Chunk]) -> Iterator[Finished]:
        from concurrent.futures import as_completed

        futures = {self._pool.submit(_train, chunk): chunk for chunk in chunks}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a worker process: torch computes with one thread inside, and with as many as before after it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str) -> str:
    """``auto`` is the GPU if torch sees one.

    Raises:
        InputError: a device that torch does not know or that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}, but must be auto, cpu, cuda, or one GPU such as cuda:1")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {reason_of(error)} (choose auto, cpu or cuda)") from error
    return name


def choose_workers(requested: int | None, device: str) -> int:
    """As many as there are cores to run on; one on a GPU, where more would only compete."""
    if requested is not None and requested < 1:
        raise InputError(f"workers is {requested}, but must be a whole number from 1 up")
    if device.startswith("cuda"):
        return 1
    if requested is not None:
        return requested
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


_trouble = ""  # why this worker cannot work; raised with the first chunk, since an initializer can only break the pool
_trainers: Trainers | None = None  # what a worker process keeps between chunks: compiled steps, data


def _start_worker(source: str | Workload, settings: Settings, expected: str) -> None:
    global _trainers, _trouble
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    torch.set_num_threads(1)
    workload = load(source) if isinstance(source, str) else source
    _trainers = Trainers(workload, settings, "cpu")
    if identity(workload) != expected:
        _trouble = "the task differs each time it is made (its data or initial weights): seed what is random in it"


def _train(chunk: Chunk) -> list[Outcome]:
    assert _trainers is not None
    if _trouble:
        raise InputError(_trouble)
    return _trainers[chunk.batch_size].train(chunk)
