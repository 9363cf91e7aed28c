"""Ctrl-C or SIGTERM in the middle of a study: what is finished stays, no process does, and the study can go on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")

LONG = shlex.split("compare digits --batch-sizes 256 --epochs 3 --tuning-seeds 500 --compile off --out runs")


def wait_for(condition, seconds: float) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("options", "number", "status"),
    [
        ("--workers 1", signal.SIGINT, 130),
        ("--workers 2", signal.SIGINT, 130),
        ("--workers 2", signal.SIGTERM, 143),
        ("--workers 2 --engine process", signal.SIGINT, 130),
    ],
)
def test_interrupt(tmp_path: Path, options: str, number: signal.Signals, status: int) -> None:
    """Ctrl-C reaches the whole process group, SIGTERM the one process that it is sent to."""
    command = [*LONG, *options.split()]
    study = subprocess.Popen(
        [sys.executable, "-m", "lightball", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives it
    )
    try:
        assert wait_for(lambda: list(tmp_path.glob("runs/chunks/*.parquet")) or study.poll() is not None, 60)
        assert study.poll() is None, study.communicate()
        (os.killpg if number is signal.SIGINT else os.kill)(study.pid, number)
        started = time.monotonic()
        _, err = study.communicate(timeout=20)
        assert time.monotonic() - started < 5
        assert study.returncode == status
        assert wait_for(lambda: group_is_empty(study.pid), 20), "a worker is left"
    finally:
        if not group_is_empty(study.pid):
            os.killpg(study.pid, signal.SIGKILL)

    files = list(tmp_path.glob("runs/chunks/*"))
    assert all(path.suffix == ".parquet" for path in files)
    assert sum(pq.read_table(path).num_rows for path in files) >= 1
    assert err.count("\n") == 1, err  # and so no traceback
    line = err.strip()
    chunks = "1 finished chunk" if len(files) == 1 else f"{len(files)} finished chunks"
    again = " ".join(["lightball", *command])
    assert line == f"lightball: interrupted; {chunks} in runs; go on with: {again}"
