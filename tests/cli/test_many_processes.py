"""Several `lightball compare` on one folder at once: they share the work, and one that is killed is replaced."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lightball
from lightball.studies.store import survey

STUDY = shlex.split(
    "compare digits --batch-sizes 32,128 --epochs 6 --stages 6 --tuning-seeds 2 --lr 0.2,0.4 --max-extensions 1 "
    "--compile off --workers 1 --json --out"
)
PROCESSES = 4
Study = subprocess.Popen[str]


def start(folder: Path) -> Study:
    command = [sys.executable, "-m", "lightball", *STUDY, str(folder)]
    threads = {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **threads}
    )


def result_of(study: Study) -> dict[str, Any]:
    out, err = study.communicate(timeout=300)
    assert (study.returncode, err) == (0, "")
    return json.loads(out)  # type: ignore[no-any-return]


def found(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("seconds", "folder", "runs", "report")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("alone")
    return result_of(start(folder)), folder


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[list[Study]]:
    running = [start(tmp_path / "shared") for _ in range(PROCESSES)]
    yield running
    for study in running:
        if study.poll() is None:
            study.kill()


def assert_complete(folder: Path) -> None:
    state = survey(folder)
    assert state.damaged == ()
    assert state.in_flight == ()
    assert not list(folder.rglob("*.tmp"))


def test_each_run_is_computed_once(alone: tuple[dict[str, Any], Path], studies: list[Study], tmp_path: Path) -> None:
    results = [result_of(study) for study in studies]
    computed = [result["runs"]["computed"] for result in results]
    assert sum(computed) == alone[0]["runs"]["computed"]
    assert sum(c > 0 for c in computed) >= 2, "nothing was shared"
    assert all(found(result) == found(alone[0]) for result in results)
    table, expected = (lightball.load(f).replace_schema_metadata(None) for f in (tmp_path / "shared", alone[1]))
    assert table.equals(expected)
    assert_complete(tmp_path / "shared")


def test_one_that_is_killed_is_replaced(
    alone: tuple[dict[str, Any], Path], studies: list[Study], tmp_path: Path
) -> None:
    """Killed while it holds a claim, in the middle of the study."""
    folder = tmp_path / "shared"
    victim = claimant(folder, {study.pid: study for study in studies})
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    results = [result_of(study) for study in studies if study is not victim]
    assert len(results) == PROCESSES - 1
    assert all(found(result) == found(alone[0]) for result in results)
    assert_complete(folder)


def claimant(folder: Path, studies: dict[int, Study]) -> Study:
    """One of the studies that holds a claim after something was finished."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        if len(list(folder.glob("chunks/*.parquet"))) >= 2:
            holders = [studies[c.pid] for c in survey(folder).in_flight if c.pid in studies]
            if holders:
                return holders[0]
        time.sleep(0.01)
    raise AssertionError("no claim was seen")
