"""A user's own task file, from a folder of its own, through the command line with two workers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lightball.cli.main import main

TASK = '''\
"""Which of two intertwined spirals is a point on?"""

import math

import torch
from spirals import spiral
from torch import nn

from lightball import Data, Workload


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))


def make_task() -> Workload:
    generator = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(600, generator=generator)
    targets = torch.arange(600) % 2
    inputs = spiral(angle + math.pi * targets, angle)
    return Workload(
        name="spirals",
        model=make_model,
        train=Data(inputs[:400], targets[:400]),
        validation=Data(inputs[400:500], targets[400:500]),
        test=Data(inputs[500:], targets[500:]),
        loss=nn.CrossEntropyLoss(reduction="none"),
    )
'''
NEIGHBOUR = """\
import torch


def spiral(angle, radius):
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1) / 6
"""


def by_key(folder: Path) -> dict[str, Any]:
    """Chunks by their key; the digest in a file's name also covers the command that made it."""
    tables = {path.name.split(".")[0]: pq.read_table(path) for path in folder.glob("chunks/*.parquet")}
    return {key: table.replace_schema_metadata(None) for key, table in tables.items()}


def test_from_another_folder_with_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "my_task.py").write_text(TASK)
    (tmp_path / "tasks" / "spirals.py").write_text(NEIGHBOUR)
    (tmp_path / "elsewhere").mkdir()
    command = shlex.split(
        "compare ../tasks/my_task.py:make_task --batch-sizes 8,400 --epochs 2 --stages 6 --tuning-seeds 1 --lr 0.2,0.4 "
        "--max-extensions 0 --compile off"
    )
    done = subprocess.run(
        [sys.executable, "-m", "lightball", *command, "--workers", "2", "--json"],
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    value = json.loads(done.stdout)
    assert value["task"] == "spirals"
    assert [b["batch_size"] for b in value["batch_sizes"]] == [8, 400]
    assert value["batch_sizes"][0]["sgd"]["train_loss"] < 0.7
    assert value["folder"].startswith("lightball-runs/spirals-")  # the default, in the folder where it was called

    # One process computes the same chunks, to the same bit.
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main([*command, "--workers", "1", "--out", "alone", "--quiet"]) == 0
    there, here = (by_key(Path(folder)) for folder in (value["folder"], "alone"))
    assert len(there) > 2
    assert here == there
