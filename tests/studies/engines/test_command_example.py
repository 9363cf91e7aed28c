"""The example script: its rate is lightball's, its README is true, and every command there runs."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightball.studies.engines.command import prepare
from lightball.studies.engines.template import PLACEHOLDERS, parse
from lightball.studies.runs import Chunk, Outcome, Run, seeds
from lightball.studies.settings import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="scripts of a POSIX shell")

EXAMPLES = Path(__file__).parents[3] / "examples"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for language, code in BLOCKS if language == "sh" for line in code.splitlines()]


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, where ``python`` is this Python."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__", "lightball-runs"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def script_of(command: list[str]) -> str:
    (script,) = [word for word in command if "{seed}" in word]
    return script


def by_hand(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The curve of the script if it averages gradients, m ← β m + (1 − β) g, with steps of η m."""

    class Averaging:
        def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
            self.parameters = list(parameters)
            self.means = [torch.zeros_like(p) for p in self.parameters]

        def zero_grad(self) -> None:
            for p in self.parameters:
                p.grad = None

        @torch.no_grad()
        def step(self) -> None:
            for p, mean in zip(self.parameters, self.means, strict=True):
                assert p.grad is not None
                mean.mul_(run.momentum).add_(p.grad, alpha=1 - run.momentum)
                p.sub_(mean, alpha=run.effective_lr)

    monkeypatch.setattr(torch.optim, "SGD", Averaging)
    arguments = f"--lr 0 --epochs 2 --batch-size {run.batch_size} --seed {run.seed >> 32}".split()
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    runpy.run_path(str(EXAMPLES / "train.py"), run_name="__main__")
    return list(json.loads(capsys.readouterr().out)["curve"])


def test_the_rate_of_the_script_is_effective(
    examples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run(32, 0.4, seeds("tune", 1)[0], momentum) for momentum in (0.0, 0.9)]
    job = prepare(script_of(COMMANDS[0]), Settings(engine="command", epochs=2), 2, timeout=300)
    assert job.task == "train.py"
    finished = list(job.start(examples).compute([Chunk((run,)) for run in runs]))
    assert {outcome.run for _, (outcome,) in finished} == set(runs)
    for _, (outcome,) in finished:
        assert outcome.error is None
        assert not outcome.failed
        assert outcome.curve == pytest.approx(by_hand(outcome.run, capsys, monkeypatch), rel=1e-3)
        assert outcome.final["train_loss"] == outcome.curve[-1] < outcome.untrained["train_loss"] == outcome.curve[0]
        assert 0.5 < outcome.final["validation_accuracy"] <= 1
        assert 0.5 < outcome.final["test_accuracy"] <= 1


def lightball(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lightball", *words, "--out", "runs"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: script_of(command).split()[0])
def test_a_command_of_the_readme_runs(examples: Path, command: list[str]) -> None:
    """Until its first runs are stored; then Ctrl-C, since all would take minutes."""
    assert command[0] == "lightball"
    study = lightball(*command[1:], "--workers", "2")
    try:
        end = time.monotonic() + 120
        while len(list(examples.glob("runs/chunks/*.parquet"))) < 2 and study.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        study.send_signal(signal.SIGINT)
        out, err = study.communicate(timeout=30)
    finally:
        study.kill()
    assert study.returncode == 130, err
    assert "need momentum?" in out
    ends = [path.read_text(encoding="utf-8").splitlines()[-1] for path in examples.glob("runs/logs/*.log")]
    results = [json.loads(line) for line in ends if line.startswith("{")]
    assert len(results) >= 2
    assert all(len(result["curve"]) == 6 for result in results)


def test_a_whole_study(examples: Path) -> None:
    """A ball in the parabola x²/2, in awk; what is left of x² after four epochs of a step each is known."""
    Path("ball.awk").write_text(
        r"""BEGIN {
            rate = ARGV[1]; beta = ARGV[2]; x = 1 + (ARGV[4] % 1000) / 1000; curve = x * x
            for (i = 1; i <= 4; i++) { b = beta * b + x; x -= rate * b; curve = curve ", " x * x }
            printf "{\"train_loss\": %.17g, \"curve\": [%s]}\n", x * x, curve
        }"""
    )
    script = "awk -f ball.awk {torch_lr} {momentum} {batch_size} {seed} {epochs}"
    sizes = ["--batch-sizes", "8", "--lr", "0.4", "--max-extensions", "0", "--epochs", "4"]
    few = ["--stages", "6", "--tuning-seeds", "1", "--workers", "2"]
    study = lightball("compare", "--engine", "command", script, *sizes, *few, "--json")
    out, err = study.communicate(timeout=300)
    assert study.returncode == 0, err
    (batch,) = json.loads(out)["batch_sizes"]
    x, average = 1.0, 0.0
    for _ in range(4):
        average = 0.9 * average + 0.1 * x
        x -= 0.4 * average
    for arm, left in ((batch["sgd"], (1 - 0.4) ** 8), (batch["sgdm"][0], x**2)):
        assert arm["train_loss"] == pytest.approx(left * arm["curve"][0], rel=1e-4)
        assert arm["train_loss_se"] > 0
    assert batch["sgdm"][0]["difference"]["train_loss"]["verdict"] == "hurts"
    assert len(list(examples.glob("runs/logs/*.log"))) == 14


def test_all_that_the_readme_names_exists() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "json"]
    named = set(re.findall(r"^\| (`\{.*?) \|", README, flags=re.MULTILINE))
    assert {name for row in named for name in re.findall(r"\{(\w+)\}", row)} == set(PLACEHOLDERS)
    for command in COMMANDS:
        parse(script_of(command), Settings(engine="command", epochs=5))


def test_the_json_of_the_readme_is_a_result(tmp_path: Path) -> None:
    (text,) = [code.strip() for language, code in BLOCKS if language == "json"]
    command = f"echo {shlex.quote(text)}"
    script = f"bash -c {shlex.quote(command)} x {{lr}} {{momentum}} {{batch_size}} {{seed}}"
    ((_, (outcome,)),) = (
        prepare(script, Settings(engine="command"), 1).start(tmp_path).compute([Chunk((Run(8, 1, 1, 0),))])
    )
    assert isinstance(outcome, Outcome)
    assert outcome.error is None
    assert outcome.curve == (2.31, 0.35, 0.012)
