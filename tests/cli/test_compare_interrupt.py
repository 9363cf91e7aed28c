"""Ctrl-C in the middle of a study: what is finished is kept, nothing is left running, and the study can go on."""

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

LONG = shlex.split("compare digits --batch-sizes 256 --epochs 10 --tuning-seeds 500 --compile off --out runs")


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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c(tmp_path: Path, workers: str) -> None:
    command = [*LONG, "--workers", workers]
    study = subprocess.Popen(
        [sys.executable, "-m", "lightball", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives it; Ctrl-C reaches all of it
    )
    try:
        assert wait_for(lambda: list(tmp_path.glob("runs/chunks/*.parquet")) or study.poll() is not None, 60)
        assert study.poll() is None, study.communicate()
        os.killpg(study.pid, signal.SIGINT)
        started = time.monotonic()
        _, err = study.communicate(timeout=20)
        assert time.monotonic() - started < 10
        assert study.returncode == 130
        assert wait_for(lambda: group_is_empty(study.pid), 20), "a worker is left"
    finally:
        if not group_is_empty(study.pid):
            os.killpg(study.pid, signal.SIGKILL)

    files = list(tmp_path.glob("runs/chunks/*"))
    assert all(path.suffix == ".parquet" for path in files)
    assert sum(pq.read_table(path).num_rows for path in files) >= 1
    (line,) = err.strip().splitlines()  # and so no traceback
    chunks = "1 finished chunk" if len(files) == 1 else f"{len(files)} finished chunks"
    again = " ".join(["lightball", *command])
    assert line == f"lightball: interrupted; {chunks} in runs; go on with: {again}"
