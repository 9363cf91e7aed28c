"""Memory of a population does not grow with its trajectories or steps, only with how many are moved at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# 200 coordinates in float64: 1.6 kB for each of x, m, the noise and the gradient of a trajectory.
PROGRAM = """
import json
import torch
from lightball.dynamics.population import Arm, simulate
from lightball.oracles import Quadratic

oracle = Quadratic(1.0, 1.0, torch.ones(200, dtype=torch.float64))

def peak_after(num_trajectories, num_steps, width):
    simulate(oracle, {"sgdm": Arm(0.1, 0.9)}, num_steps, num_trajectories, {"x": lambda x, m: x["x"][:, 0]},
             width=width, threads=2, record_at=range(0, num_steps + 1, num_steps // 2))
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

print(json.dumps([peak_after(4, 2, 4), peak_after(2000, 4, 1000), peak_after(40_000, 4, 1000),
                  peak_after(2000, 80, 1000), peak_after(20_000, 4, 10_000)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_peak_does_not_grow_with_trajectories_or_steps() -> None:
    # Freed blocks go back to the system at once, so that the peak is one of memory in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    start, two_chunks, forty_chunks, long, wide = json.loads(done.stdout)
    of_chunks = two_chunks - start
    assert of_chunks > 8
    # Twenty times the trajectories, or steps, kept would be 60 MB and more.
    assert forty_chunks - two_chunks < 0.5 * of_chunks + 2
    assert long - forty_chunks < 0.5 * of_chunks + 2
    # Control: what is moved at once is seen.
    assert wide - long > 4 * of_chunks
