"""The most memory that something takes, and errors that say it was not enough."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

_EXHAUSTED = re.compile(r"out of memory|can't allocate memory|not enough memory|failed to allocate", re.IGNORECASE)


def watch_peak(device: str) -> Callable[[], int | None]:
    """From now on, the peak is watched; the function that is returned tells it in bytes, None where it is not known.

    On the CPU it is the resident size of this process; where the system cannot forget an earlier peak (all but Linux),
    the largest of its life. On a GPU it is what torch has allocated there.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak of the resident size
    return _peak_resident


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _EXHAUSTED.search(str(error)) is not None


def _peak_resident() -> int | None:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        if found:
            return 1024 * int(found[1])
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
