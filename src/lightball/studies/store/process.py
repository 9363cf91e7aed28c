"""A process by what tells it from all others, so that a reused process id is not taken for it."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """``boot`` and ``namespace`` tell where a process id means something; ``start`` is in ticks since the boot."""

    host: str
    boot: str | None
    namespace: str | None
    pid: int
    start: str | None

    def is_gone(self) -> bool:
        """Whether it is known to have ended; False of another machine or container, of which nothing is known."""
        here = this_process()
        if os.name != "posix" or (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        state, start = _state_and_start(self.pid)
        return state in ("Z", "X") or (None not in (start, self.start) and start != self.start)


def this_process() -> Process:
    return _process(os.getpid())


@cache
def _process(pid: int) -> Process:
    boot: str | None = None
    namespace: str | None = None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return Process(socket.gethostname(), boot, namespace, pid, _state_and_start(pid)[1])


def _state_and_start(pid: int) -> tuple[str | None, str | None]:
    """The state (Z: ended, but its parent has not asked) and the start of a process, where /proc tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None, None
