"""One thread of torch's where threads of its own do harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[int]:
    """Inside, torch computes in one thread; gives the number it had, and restores it.

    Small matrices take ten times as long on two threads as on one where the machine is busy; and where threads of ours
    share out the work, each computes alone. Inductor bakes the number into its programs, too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
