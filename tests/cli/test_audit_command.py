"""`lightball audit`: the user's own optimizer, and a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightball.cli.main import main

TRAIN = """\
import torch
from torch import nn


def make_optimizer():
    return torch.optim.SGD(nn.Linear(5, 3).parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def make_both():
    optimizer = make_optimizer()
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 10)


def make_model():
    return nn.Linear(5, 3)


def make_two():
    return [make_optimizer(), make_optimizer()]


def make_nothing():
    return None


class NoMomentum(torch.optim.SGD):
    pass


def make_chatty():
    print("hello from the file")
    return NoMomentum(nn.Linear(5, 3).parameters(), lr=0.1)


def make_cycled():
    optimizer = make_optimizer()
    return optimizer, torch.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 0.2)


def fails():
    raise ValueError("no")
"""
FIELDS = {
    "family": "sgdm",
    "effective_lr": 1.0,
    "momentum": 0.9,
    "dampening": 0.0,
    "nesterov": False,
    "weight_decay": 0.001,
    "decoupled": False,
    "momentum_active": True,
    "state_bytes_per_parameter": 4.0,
}


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_train.py"
    path.write_text(TRAIN)
    return path


@pytest.mark.parametrize("function", ["make_optimizer", "make_both"])
def test_json(train: Path, function: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", f"my_train.py:{function}", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in FIELDS} == pytest.approx(FIELDS)


def test_what_the_file_prints_is_not_in_the_json(train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "my_train.py:make_chatty", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["optimizer"] == "my_train.NoMomentum"
    assert shown.err == "hello from the file\n"


def test_a_scheduler_that_moves_the_momentum(train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for function, said in [("make_cycled", 1), ("make_both", 0)]:
        assert main(["audit", f"my_train.py:{function}"]) == 0
        assert capsys.readouterr().out.count("momentum follows a schedule; 0.9 is its value now") == said


def test_text_in_a_process_of_its_own(train: Path) -> None:
    command = [sys.executable, "-m", "lightball", "audit", "my_train.py:make_optimizer"]
    done = subprocess.run(command, cwd=train.parent, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:4] == [
        "group 0 of torch.optim.SGD",
        "  family        SGD with momentum",
        "  effective lr  1, from lr 0.1",
        "  momentum      0.9, active; it remembers 10 steps",
    ]


def test_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = torch.optim.SGD(nn.Linear(5, 3).parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    assert main(["audit", str(tmp_path / "checkpoint.pt"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in FIELDS} == pytest.approx(FIELDS)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("my_train.py", "'my_train.py' is a Python file: name the function that makes the optimizer, as"),
        ("gone.py:make_optimizer", "there is no file 'gone.py': give the path of a Python file, as my_train.py:make_"),
        ("my_train.py:gone", "my_train.py has no function 'gone': define one that returns a torch.optim.Optimizer"),
        ("my_train.py:fails", "my_train.py:fails fails with ValueError: no"),
        ("my_train.py:make_model", "my_train.py:make_model returned a Linear; return the optimizer, or (optimizer, sc"),
        ("my_train.py:make_nothing", "my_train.py:make_nothing returned None; return the optimizer, or"),
        ("my_train.py:make_two", "my_train.py:make_two returned two optimizers; return one, or (optimizer, scheduler)"),
        (
            "my_train.py:",
            "'my_train.py:' names no function: give one that returns a torch.optim.Optimizer, as my_train.",
        ),
        ("my_train:make", "there is no file 'my_train:make': did you mean my_train.py:make?"),
        (".", "'.' is a folder: give a checkpoint in it"),
        ("gone.pt", "there is no file 'gone.pt': give a checkpoint"),
    ],
)
def test_refusals(train: Path, target: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", target]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"lightball: {message}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""
