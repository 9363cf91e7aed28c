"""An interruption is heard at once, however long a chunk takes and however seldom moments are recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from lightball.dynamics.population import chunks, partition
from lightball.dynamics.population.chunks import Course, Plan
from lightball.oracles import Quadratic

# Some minutes for each chunk; the last step is the only one that is recorded after the start.
PROGRAM = """
import sys, torch
from lightball.dynamics import Arm, simulate
from lightball.oracles import Quadratic

STEPS = 10_000_000

def started(x, m):
    sys.stdout.write("moving\\n")
    sys.stdout.flush()
    return x["x"][:, 0]

try:
    simulate(Quadratic(1.0, 1.0, torch.ones(2)), {"sgdm": Arm(0.1, 0.9)}, STEPS, 40, {"x": started}, [0, STEPS],
             width=10, threads=int(sys.argv[1]), compiled=False)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_ends_a_simulation_and_its_threads(threads: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(threads)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "moving\n"
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=10)
        finally:
            process.kill()
    # Not always last: a thread that was being started then may still say that it moves, before it hears of the end.
    assert "interrupted" in rest.splitlines()
    assert process.returncode == 0


def test_a_chunk_asks_before_each_step_whether_it_is_cancelled() -> None:
    course = Course(np.full(10_000, 0.1), np.zeros(10_000))
    plan = Plan(
        oracle=Quadratic(1.0, 1.0, torch.ones(1)),
        courses={"sgd": course},
        observables={"x": lambda x, m: x["x"][:, 0]},
        steps=(10_000,),
        coupled=True,
        seed=0,
        num_groups=1,
        device=torch.device("cpu"),
    )
    (chunk,), programs = partition.prepare(plan, 10_000, 4, None, compiled=False)
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 100

    seen = chunks.run(plan, chunk, programs[chunk.width], cancelled)
    assert len(asked) == 101
    assert not seen.count.any()
