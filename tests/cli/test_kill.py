"""SIGKILL at random moments of a real study: five here; `python benchmarks/kill.py` makes 25."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).parents[2] / "benchmarks" / "kill.py"


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_killed_and_resumed_is_as_if_nothing_had_happened() -> None:
    command = [sys.executable, str(KILL), "--kills", "5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["kills"] == 5
    assert facts["kills_before_the_first_chunk"] < 5
    assert facts["studies_finished"] >= 1
    assert facts["damaged_files"] == facts["results_that_differ"] == facts["runs_that_differ"] == 0
