"""Worker processes that are replaced when they die, and work that is tried again when its worker did."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lightball.errors import InputError, reason_of

Item = TypeVar("Item")
Answer = TypeVar("Answer")

ATTEMPTS = 3
_ORPHAN_POLL = 0.5  # seconds


@dataclass(frozen=True)
class Crash:
    """What is left of work that failed :data:`ATTEMPTS` times: its last error."""

    error: str


class Pool(Generic[Item, Answer]):
    """``num_workers`` processes of one thread each, started when they are first needed.

    Each is a pool of one, so that a death is known to be that of the work in it and touches no other. One thread,
    because two OpenMP pools that spin on the same cores slow each other down tenfold. A worker whose parent is gone
    ends itself.

    Args:
        start: makes, in each worker, what computes the answer to an item: ``start(*arguments)(item)``. What it
            raises is raised with the first item.
    """

    def __init__(
        self, start: Callable[..., Callable[[Item], Answer]], arguments: Sequence[Any], num_workers: int
    ) -> None:
        self._begin = (os.getpid(), start, *arguments)
        _start_tracker()
        self._workers: set[Any] = set()  # idle, busy, and the one that an interrupt may leave between the two
        self._idle = [self._new_worker() for _ in range(num_workers)]
        self._busy: dict[Future[Answer], tuple[Any, Item, int]] = {}

    def map(self, items: Iterable[Item]) -> Iterator[tuple[Item, Answer | Crash]]:
        """Each item with its answer as soon as there is one; an item is taken when a worker is free for it.

        Raises:
            InputError: the work raised one; it would do so again.
        """
        waiting = iter(items)
        exhausted = False
        while True:
            while self._idle and not exhausted:
                try:
                    self._submit(next(waiting), attempt=1)
                except StopIteration:
                    exhausted = True
            if not self._busy:
                return
            done, _ = wait(self._busy, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda f: f.exception() is not None):  # answers first: an error may end it
                answer = self._settle(future)
                if answer is not None:
                    yield answer

    def close(self) -> None:
        """End all workers at once, whatever they do."""
        # All at once: each call ends its worker first and waits for it then.
        threads = [threading.Thread(target=worker.shutdown, args=(True, True)) for worker in self._workers]
        self._idle, self._busy, self._workers = [], {}, set()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _settle(self, future: Future[Answer]) -> tuple[Item, Answer | Crash] | None:
        """The answer of a future that is done; None if its item is tried again."""
        worker, item, attempt = self._busy.pop(future)
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            worker.shutdown(wait=False)
            self._workers.discard(worker)
            worker = self._new_worker()
        self._idle.append(worker)
        if error is None:
            return item, future.result()
        if isinstance(error, InputError):
            raise error
        if attempt == ATTEMPTS:
            return item, Crash(_in_words(error))
        self._submit(item, attempt + 1)
        return None

    def _submit(self, item: Item, attempt: int) -> None:
        worker = self._idle.pop()
        self._busy[worker.submit(_answer, item)] = (worker, item, attempt)

    def _new_worker(self) -> Any:
        from loky import ProcessPoolExecutor

        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1")
        worker = ProcessPoolExecutor(1, initializer=_start_worker, initargs=self._begin, env=threads)
        self._workers.add(worker)
        return worker


def _start_tracker() -> None:
    """Start the process that removes semaphores of a process that was killed, without its warning that it does so."""
    from loky.backend import resource_tracker

    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker"]))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _in_words(error: BaseException) -> str:
    if isinstance(error, BrokenExecutor):
        code = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
        return f"the worker process died{f' ({code[1]})' if code else ''}, {ATTEMPTS} times"
    return f"{type(error).__name__}: {reason_of(error)}"


_compute: Callable[[Any], Any] | None = None  # in a worker: what computes answers
_trouble: Exception | None = None  # raised with the first item, since an initializer can only break the worker


def _start_worker(parent: int, start: Callable[..., Callable[[Any], Any]], *arguments: Any) -> None:
    global _compute, _trouble
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    try:
        _compute = start(*arguments)
    except Exception as error:  # the user's own code runs here: anything can be raised
        _trouble = error


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHAN_POLL)
    os._exit(1)


def _answer(item: Any) -> Any:
    if _trouble is not None:
        raise _trouble
    assert _compute is not None
    return _compute(item)
