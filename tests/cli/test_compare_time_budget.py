"""`lightball compare --time-budget` and `--keep-runs`: a budget that is spent, a command that is killed, going on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lightball.cli.main import main
from lightball.studies.store import load

TASK = """
import time
from pathlib import Path

import torch
from torch import nn

import lightball


class Layers(nn.Sequential):
    def forward(self, x):
        if self.training and len(x) == 16 and Path("slow").exists():
            time.sleep(0.1)
        return super().forward(x)


def make():
    inputs = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    data = lightball.Data(inputs, (inputs.sum(dim=1) > 0).long())
    model = lambda: Layers(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 2))
    return lightball.Workload("layers", model, data, data, data)
"""
COMPARE = shlex.split(
    "compare task.py:make --engine process --batch-sizes 16 --num-steps 20 --lr 0.2 --stages 6 --tuning-seeds 1 "
    "--max-extensions 0 --confirm-rates selected --workers 2 --no-report"
)
KEPT = [*COMPARE, "--keep-runs", "--out", "runs"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


@pytest.fixture
def lightball(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def lightball(*words: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["lightball", *words])
        assert main(words) == status
        out, err = capfd.readouterr()
        assert status or err == ""
        return err if status else out

    return lightball


def found(text: str) -> Any:
    return json.loads(text)["batch_sizes"]


def test_a_command_that_is_killed_goes_on_at_once(folder: Path, lightball: Any) -> None:
    """Its workers hold the folders of their runs for up to a second more."""
    (folder / "slow").touch()
    study = subprocess.Popen([sys.executable, "-m", "lightball", *KEPT], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(folder.glob("runs/runs/*/curve.jsonl")) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(study.pid, signal.SIGKILL)
    study.wait()
    assert list(folder.glob("runs/runs/*/curve.jsonl"))
    (folder / "slow").unlink()
    again = found(lightball(*KEPT, "--json"))
    assert again == found(lightball(*COMPARE, "--out", "whole", "--json"))
    assert len(list(folder.glob("runs/runs/*/curve.jsonl"))) == 14
    assert not list(folder.glob("runs/runs/*/checkpoints"))


def test_a_spent_budget(folder: Path, lightball: Any) -> None:
    """Says what is finished and how to go on, as text, as JSON and in one line; and is no failure."""
    nothing = lightball(*KEPT, "--time-budget", "1e-9")
    assert nothing.splitlines()[0] == "Does layers need momentum? SGD against SGDM with β = 0.9"
    assert re.search(r"\n  memory         about [\d.]+ [MG]B a worker\n", nothing)
    line = "the time budget is spent: tuning, 2 runs are missing; go on with: lightball "
    assert nothing.splitlines()[-1] == line + shlex.join([*KEPT, "--time-budget", "1e-9"])
    value = json.loads(lightball(*KEPT, "--time-budget", "1e-9", "--json"))
    assert (value["finished"], value["batch_sizes"], value["report"]) == (False, [], None)
    assert value["go_on"] == shlex.join(["lightball", *KEPT, "--time-budget", "1e-9", "--json"])

    whole = json.loads(lightball(*KEPT, "--time-budget", "1000", "--json"))
    assert whole["finished"] is True
    rows = load("runs").to_pylist()
    for row in [row for row in rows if row["phase"] == "confirm"][1:]:
        next(folder.glob(f"runs/chunks/{row['chunk']}.*")).unlink()
    (folder / "runs" / "result.json").unlink()
    some = lightball(*KEPT, "--time-budget", "1e-9")
    assert "Unfinished:" in some
    assert re.search(
        r"\n3 finished runs, computed in .*\nthe time budget is spent: confirming, 6 pairs, 11 runs are", some
    )
    value = json.loads(lightball(*KEPT, "--time-budget", "1e-9", "--json"))
    assert value["runs"] == {"computed": 0, "reused": 3, "crashed": 0}
    quiet = lightball(*KEPT, "--time-budget", "1e-9", "--quiet")
    assert quiet.startswith("the time budget is spent: ")
    assert found(lightball(*KEPT, "--json")) == whole["batch_sizes"]


def test_a_budget_in_a_file(folder: Path, lightball: Any) -> None:
    (folder / "study.toml").write_text("time-budget = 1e-9\nkeep-runs = true\nnum-steps = 20\ntune = 'sgdm'")
    words = [word for word in COMPARE if word != "--num-steps"]
    words.remove("20")
    out = lightball(*words, "--config", "study.toml", "--out", "runs")
    assert "the time budget is spent: tuning, 1 run is missing" in out
    assert "20 steps" in out
    assert "SGD takes the rate of SGDM" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--time-budget", "0"], "time-budget is 0, but must be a finite number of minutes above 0"),
        (["--time-budget", "-3"], "time-budget is -3, but must be"),
        (["--time-budget", "nan"], "time-budget is nan, but must be"),
        (
            ["--engine", "vectorised", "--keep-runs"],
            "keep-runs is on, but the vectorised engine keeps nothing of a run",
        ),
        (["--engine", "vectorised"], "num-steps is 20, but the vectorised engine trains"),
        (
            ["--time-budget", "1e-9", "--no-keep-runs"],
            "the time budget leaves nothing for runs, but the shortest takes",
        ),
        (["--tune", "sgdm", "--momentum", "0.5,0.9"], "tune is sgdm, but must be both with momentum 0.5,0.9"),
        (["--in-backward", "--precision", "float16"], "in_backward is True, but must be False in float16"),
    ],
)
def test_refused_in_one_line(folder: Path, lightball: Any, words: list[str], message: str) -> None:
    said = lightball(*COMPARE, *words, "--out", "runs", status=2)
    assert message in said
    assert said.count("\n") == 1
