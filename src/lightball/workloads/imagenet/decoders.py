"""Processes that decode images."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from typing import Any

from lightball.errors import InputError
from lightball.workloads.imagenet.images import Asked, Decoded, Images

_ORPHAN_POLL = 0.5  # seconds
_HERE_AT_FIRST = 64  # images that are decoded before processes are started for more
_ATTEMPTS = 3


@dataclass(frozen=True)
class Pending:
    """What processes were asked to decode; ``future`` and ``executor`` are None where there are none."""

    asked: Asked
    future: Future[Decoded] | None = None
    executor: Any = None


class Decoders:
    """``num_workers`` processes of one thread each that decode images; started when there is work, then kept.

    They end with this object, and with its process, however that ends. A copy, by ``copy`` or by sending, is the
    same object or, elsewhere, one that has not started any; so all models of a task share them.

    Args:
        images: what is decoded.
        num_workers: 0 decodes in this process; None: as many as there are cores for it, 16 at most.
    """

    def __init__(self, images: Images, num_workers: int | None = None) -> None:
        self.images = images
        self.num_workers = num_workers
        self._executor: Any = None
        self._ready = False
        self._greetings: list[Future[None]] = []
        self._decoded_here = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Decoders, (self.images, self.num_workers)

    def __deepcopy__(self, memo: object) -> Decoders:
        return self

    @property
    def used(self) -> int:
        """Processes that are used."""
        return num_cores() if self.num_workers is None else self.num_workers

    def begin(self, asked: Asked) -> Pending:
        """Have a process decode images, for :meth:`finish`."""
        if not self.used:
            return Pending(asked)
        executor = self._started()
        return Pending(asked, executor.submit(_decode, asked), executor)

    def finish(self, pending: Pending) -> Decoded:
        """What was begun, once it is done.

        Raises:
            InputError: processes die over it, or see :meth:`Images.decode`.
        """
        for _ in range(_ATTEMPTS):
            if pending.future is None:
                return self.images.decode(pending.asked)
            try:
                return pending.future.result()
            except BrokenExecutor:
                if pending.executor is self._executor:
                    self.close()
                pending = self.begin(pending.asked)
        names = ", ".join(map(self.images.source.name, pending.asked.examples))
        raise InputError(
            f"the processes that decode images died {_ATTEMPTS} times over {names}: look whether memory suffices for "
            f"{self.used} of them (workers), and at these files"
        )

    def decode(self, asked: Iterable[Asked]) -> list[Decoded]:
        """All of it now: here, as long as there is little or no process is ready yet, else in the processes."""
        parts = list(asked)
        self._decoded_here += sum(len(part.examples) for part in parts)
        if self.used and self._decoded_here > _HERE_AT_FIRST:
            self._started()
        if not self._is_ready():
            return [self.images.decode(part) for part in parts]
        return [self.finish(pending) for pending in [self.begin(part) for part in parts]]

    def close(self) -> None:
        """End the processes; they are started again when there is work."""
        executor, self._executor, self._ready = self._executor, None, False
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)

    def _started(self) -> Any:
        if self._executor is None:
            from loky import ProcessPoolExecutor

            threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._executor = ProcessPoolExecutor(
                self.used, initializer=_start, initargs=(os.getpid(), self.images), env=threads
            )
            self._greetings = [self._executor.submit(_greet)]
        return self._executor

    def _is_ready(self) -> bool:
        self._ready = self._ready or (self._executor is not None and all(g.done() for g in self._greetings))
        return self._ready


def num_cores() -> int:
    """Cores for decoding: those that this process may use, shared with the others of its launcher on the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return min(16, max(1, cores // max(1, int(beside) if beside.isdecimal() else 1)))


_images: Images | None = None  # in a decoding process


def _start(parent: int, images: Images) -> None:
    global _images
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _images = images


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHAN_POLL)
    os._exit(1)


def _decode(asked: Asked) -> Decoded:
    assert _images is not None
    return _images.decode(asked)


def _greet() -> None:
    """Done as soon as a process works."""
