"""Runs one command, and lets nothing of it outlive the process that asked for it.

    python -I -S guard.py PARENT WORD...

The command runs in a process group of its own. The group is ended (SIGTERM, half a second later SIGKILL) when the guard
is asked to stop by a signal, when its parent is no longer the process PARENT, and when the command itself has ended and
left children behind. The guard ends as the command did: with its exit code, or by the same signal.

It stands alone, so that it starts in a few hundredths of a second: it imports nothing of lightball. POSIX only.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

POLL = 0.5  # seconds between looks at the parent
GRACE = 0.5  # seconds that a group has to end by itself
REAP = 0.3  # seconds that the kernel has to end it
CANNOT_START = "cannot start: "


def main(parent: int, words: list[str]) -> int:
    stop_signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    arrivals = receive(signal.SIGCHLD, *stop_signals)  # before there is a child that a signal could orphan
    try:
        # Python ignores two signals, which its children would inherit.
        child = os.posix_spawnp(words[0], words, os.environ, setpgroup=0, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))
    except OSError as error:
        print(f"{CANNOT_START}{error}", file=sys.stderr)
        return 127
    status, stopping = None, False
    while status is None and not stopping and os.getppid() == parent:
        ready, _, _ = select.select([arrivals], [], [], POLL)
        stopping = bool(ready) and not stop_signals.isdisjoint(os.read(arrivals, 4096))
        status = reap(child)
    code = end_group(child, status)
    if code < 0:
        die_by(-code)
    return code


def receive(*signals: int) -> int:
    """A file descriptor from which the numbers of the signals that arrived are read, a byte each."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    return reader


def reap(child: int) -> int | None:
    pid, status = os.waitpid(child, os.WNOHANG)
    return status if pid else None


def end_group(child: int, status: int | None) -> int:
    """End what is left of the child's group; the child's exit code, or −signal."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, REAP)):
        end = time.monotonic() + patience
        left = signal_group(child, number)
        while left and time.monotonic() < end:
            time.sleep(0.01)
            status = reap(child) if status is None else status
            left = signal_group(child, 0)
        if not left:
            break
    return -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)


def signal_group(group: int, number: int) -> bool:
    """Whether the group has a member; macOS does not permit signals to one of zombies only."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def die_by(number: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left its core, if any
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
