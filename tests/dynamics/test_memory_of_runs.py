"""Memory while training does not grow with the number of runs, only with how many are moved at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# 1.2 M parameters: 5 MB each for weights, buffer and gradient. Four at once take 60 MB and more.
PROGRAM = """
import json
import torch
from torch import nn
from lightball import Data, Workload
from lightball.studies.runs import Chunk, Run
from lightball.studies.settings import Settings
from lightball.studies.engines.batch_trainer import BatchTrainer

torch.set_num_threads(1)

def model():
    return nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

data = Data(torch.randn(64, 64), torch.randint(10, (64,)))
trainer = BatchTrainer(Workload("wide", model, data, data, data), Settings(epochs=2, compile="off"), 32, "cpu")

def train(num_runs, width):
    trainer.train(Chunk(tuple(Run(32, 0.01, seed, 0.9) for seed in range(num_runs)), width, compiled=False))
    return peak()

print(json.dumps([peak(), train(4, 4), train(12, 4), train(12, 12)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_peak_does_not_grow_with_the_number_of_runs() -> None:
    # Freed blocks go back to the system at once, so that the peak is one of memory in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    start, four, twelve_by_four, twelve_at_once = json.loads(done.stdout)
    one_chunk = four - start
    assert one_chunk > 60
    # Three times the runs kept would be twice as much again; a quarter is left for what an allocator does.
    assert twelve_by_four - four < 0.25 * one_chunk
    # Control: what is moved at once is seen.
    assert twelve_at_once - twelve_by_four > one_chunk
