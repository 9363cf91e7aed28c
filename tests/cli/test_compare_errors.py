"""`lightball compare` with bad input: one line on standard error, exit code 2, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightball.cli.main import main

TASK = """
import torch
from torch import nn
from lightball import Data, Workload

data = Data(torch.randn(40, 3), torch.arange(40) % 2)

def number():
    return 3

def nan_at_the_start():
    bad = Data(data.inputs * float("nan"), data.targets)
    return Workload("nan", lambda: nn.Linear(3, 2), bad, bad, bad)

def mean_loss():
    return Workload("mean", lambda: nn.Linear(3, 2), data, data, data, nn.functional.cross_entropy)

def raises():
    raise ValueError("no\\nluck")
"""

Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """The line that ``lightball compare`` answers; runs in an empty folder with the task file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(TASK)

    def refuse(*arguments: str) -> str:
        status = main(["compare", *arguments])
        out, err = capsys.readouterr()
        assert status == 2
        assert out == ""
        assert err.startswith("lightball: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err[len("lightball: ") : -1]

    return refuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown task 'nothing': choose one of digits, digits-conv"),
        (["gone.py:make_task"], "there is no file 'gone.py'"),
        (["my_task.py:make_task"], "my_task.py has no function 'make_task'"),
        (["my_task.py:number"], "the task is a int, but must be a lightball.Workload"),
        (["my_task.py:raises"], "my_task.py:raises fails with ValueError: no (run the file"),
        (
            ["my_task.py:nan_at_the_start"],
            "train.inputs has values that are not finite (nan or inf), first in example 0",
        ),
        (["my_task.py:mean_loss"], "loss gives shape () for 2 train examples, but must give one number for each"),
        (["digits", "--batch-sizes", "8,1079"], "batch size 1079 does not fit the 1078 training examples: choose"),
        (["digits", "--batch-sizes", "0"], "batch-sizes is 0, but must be whole numbers from 1 up"),
        (["digits", "--batch-sizes", "8,x"], "Invalid value for '--batch-sizes': '8,x' is not a list of whole numbers"),
        (["digits", "--batch-sizes", ""], "Invalid value for '--batch-sizes': '' is not a list of whole numbers"),
        (["digits", "--lr", "-0.1"], "lr is -0.1, but must be finite effective learning rates above 0"),
        (["digits", "--lr", "nan"], "lr is nan, but must be finite effective learning rates above 0"),
        (["digits", "--lr", "0.1,inf"], "lr is 0.1,inf, but must be finite effective learning rates above 0"),
        (["digits", "--lr", "fast"], "Invalid value for '--lr': 'fast' is not a list of numbers"),
        (["digits", "--momentum", "1"], "momentum is 1.0, but must be numbers above 0 and below 1"),
        (["digits", "--momentum", "0.9,1.5"], "momentum is 0.9,1.5, but must be numbers above 0 and below 1"),
        (["digits", "--momentum", "0"], "momentum is 0.0, but must be numbers above 0 and below 1"),
        (["digits", "--stages", "5"], "the stages have [5] pairs; strictly increasing numbers from 6 up are required"),
        (["digits", "--stages", "16,8"], "the stages have [16, 8] pairs; strictly increasing"),
        (["digits", "--epochs", "0"], "epochs is 0, but must be a whole number from 1 up"),
        (["digits", "--epochs", "two"], "Invalid value for '--epochs': 'two' is not a valid integer"),
        (["digits", "--margin-loss", "nan"], "margin-loss is nan, but must be a number between 0 and 1"),
        (["digits", "--weight-decay", "-1"], "weight-decay is -1.0, but must be a finite number from 0 up"),
        (["digits", "--schedule", "exponential"], "unknown schedule 'exponential'; valid are constant, cosine"),
        (["digits", "--select", "test_accuracy"], "Invalid value for '--select': 'test_accuracy' is not one of"),
        (["digits", "--workers", "0"], "Invalid value for '--workers': 0 is not in the range x>=1."),
        (["digits", "--device", "tpu9"], "device is 'tpu9', but must be "),
        (["digits", "--out", "my_task.py"], "cannot write to the folder 'my_task.py': "),
        (["digits", "--out", "my_task.py/here"], "cannot write to the folder 'my_task.py/here': Not a directory"),
        (["digits", "--batchsizes", "8"], "No such option"),
        (["digits", "extra"], "Got unexpected extra argument (extra)"),
        ([], "Missing argument 'TASK'."),
        (["digits", "--config", "gone.toml"], "cannot read the settings file 'gone.toml': No such file or directory"),
        (["digits", "--config", "my_task.py"], "the settings file 'my_task.py' is not TOML: "),
    ],
)
def test_one_clear_line(refuse: Refuse, arguments: list[str], message: str) -> None:
    assert refuse(*arguments).startswith(message)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    assert refuse("digits", "--out", "locked/here").startswith("cannot write to the folder 'locked/here': Permission")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="a folder that nobody can write to")
def test_folder_that_nobody_can_write_to(refuse: Refuse) -> None:
    assert refuse("digits", "--out", "/proc/here").startswith("cannot write to the folder '/proc/here': ")


class TestToml:
    def refuse(self, refuse: Refuse, text: str) -> str:
        Path("study.toml").write_text(text)
        return refuse("digits", "--config", "study.toml")

    def test_unknown_key_lists_all_of_them(self, refuse: Refuse) -> None:
        message = self.refuse(refuse, "batchsize = 8")
        assert message.startswith("unknown setting 'batchsize' in 'study.toml': the settings are batch-sizes, lr, ")
        assert message.endswith(
            "device, workers, timeout, retry-failed, out, json, quiet, report, time-budget, keep-runs"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("lr = [nan]", "lr is nan, but must be finite"),
            ("stages = 5", "the stages have [5] pairs"),
            ("epochs = '3'", "epochs is '3', but must be of type int"),
            ("out = 3", "out is 3, but must be of type str"),
            ("quiet = 'yes'", "quiet is 'yes', but must be of type bool"),
            ("workers = 0", "Invalid value for '--workers': 0 is not in the range"),
        ],
    )
    def test_bad_values(self, refuse: Refuse, text: str, message: str) -> None:
        assert self.refuse(refuse, text).startswith(message)

    def test_flags_win(self, refuse: Refuse) -> None:
        Path("study.toml").write_text("epochs = 3\nout = 'my_task.py'\nbatch-sizes = [2000]\nmargin_loss = 0.1")
        message = refuse("digits", "--config", "study.toml", "--out", "there", "--batch-sizes", "3000")
        assert message.startswith("batch size 3000 does not fit")
        message = refuse("digits", "--config", "study.toml", "--batch-sizes", "8")
        assert message.startswith("cannot write to the folder 'my_task.py'")


@pytest.mark.parametrize(
    "arguments",
    [["digits", "--lr", "nan", "--json"], ["my_task.py:raises"], ["digits", "--batch-sizes", "8,x", "--quiet"]],
)
def test_in_a_process_of_its_own(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "my_task.py").write_text(TASK)
    done = subprocess.run(
        [sys.executable, "-m", "lightball", "compare", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("lightball: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
