"""One thread of torch's where threads of its own do harm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_inside: list[tuple[int, int]] = []
"""The threads that are inside and the number that each gets back, in the order in which they entered."""


@contextmanager
def one_torch_thread() -> Iterator[int]:
    """Inside, torch computes in one thread; gives the number it had, and restores it.

    Small matrices take ten times as long on two threads as on one where the machine is busy; and where threads of ours
    share out the work, each computes alone. Inductor bakes the number into its programs, too.

    ``torch.set_num_threads`` sets two numbers: that of the calling thread, and one of the process, which a thread takes
    over when it computes for the first time. Threads of a user may be inside at the same time: each gets back the
    number it had, or, where it took over the 1 of another that was inside, the number which the first of them had. So
    the process has its own back once all have left. A thread that begins to compute elsewhere meanwhile keeps the 1.
    """
    with _lock:
        this, before = threading.get_ident(), torch.get_num_threads()
        if before == 1 and _inside and all(thread != this for thread, _ in _inside):
            before = _inside[0][1]
        _inside.append((this, before))
        torch.set_num_threads(1)
    try:
        yield before
    finally:
        with _lock:
            _inside.remove((this, before))
            torch.set_num_threads(before)
