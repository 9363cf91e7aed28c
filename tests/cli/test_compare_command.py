"""`lightball compare --engine command` from the command line to the verdict, with a script that sometimes crashes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import lightball
from lightball.cli.main import main
from lightball.studies.runs import seeds

# Gradient descent on a noisy quadratic, in plain Python, with a parser of its own.
SCRIPT = """
import argparse, json, random, sys

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--momentum", type=float, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--crash", choices=["never", "seed", "momentum", "always"], default="never")
args = parser.parse_args()

tenth = args.seed % 10 == 0
if args.crash == "always" or (args.crash == "seed" and tenth) or (args.crash == "momentum" and tenth and args.momentum):
    print("warming up")
    sys.exit("the node is gone")

draw = random.Random(args.seed)
x, m, losses = 1.0, 0.0, []
for _ in range(200):
    losses.append(0.5 * x * x)
    m = args.momentum * m + x + 0.01 * draw.gauss(0, 1)
    x -= args.lr * m
print(json.dumps({"train_loss": 0.5 * x * x, "test_accuracy": 1 - min(1, x * x), "untrained_train_loss": 0.5,
                  "untrained_test_accuracy": 0.0}))
"""
OPTIONS = "--batch-sizes 32 --lr 0.05,0.1 --stages 12 --tuning-seeds 8 --max-extensions 0 --workers 2 --out runs"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "descend.py").write_text(SCRIPT)
    return f"{shlex.quote(sys.executable)} descend.py --lr {{torch_lr}} --momentum {{momentum}} --seed {{seed}}"


def compare(command: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    status = main(["compare", "--engine", "command", command, *OPTIONS.split(), *more])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def as_json(command: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    return json.loads(compare(command, capsys, "--json", *more))  # type: ignore[no-any-return]


def test_a_verdict_on_a_script(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = compare(command, capsys)
    assert "Does descend.py need momentum? SGD against SGDM with β = 0.9" in printed
    assert "time           not known before some runs are done, on 2 workers" in printed
    assert "epochs" not in printed
    assert printed.count("no value") >= 3
    table = lightball.load("runs")
    assert table.num_rows == 2 * 2 * 8 + 2 * 2 * 12
    logs = list(Path("runs/logs").iterdir())
    assert len(logs) == table.num_rows
    assert all(log.read_text().startswith(f"$ {sys.executable} descend.py --lr 0.") for log in logs)


def test_crashes_on_a_tenth_of_the_seeds(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the rule: those seeds are told and replaced, and the verdict rests on as many pairs as planned."""
    facts = as_json(f"{command} --crash seed", capsys)
    (batch,) = facts["batch_sizes"]
    table = lightball.load("runs").to_pylist()
    lost = {row["seed"] for row in table if row["error"]}
    assert lost == {row["seed"] for row in table if (row["seed"] >> 32) % 10 == 0}
    assert 0 < len(lost) == batch["lost_seeds"]
    assert batch["last_error"].startswith("exit code 1: warming up | the node is gone (log: runs/logs/batch-32_lr-0.")
    assert batch["sgd"]["failed"] == batch["sgdm"][0]["failed"] == 0
    assert batch["sgdm"][0]["difference"]["train_loss"]["n_pairs"] == 12
    assert batch["sgdm"][0]["difference"]["train_loss"]["verdict"] == "no value"
    printed = compare(f"{command} --crash seed", capsys)
    said = f"batch 32: on {len(lost)} seed{'s' if len(lost) > 1 else ''} every run crashed, the last with: exit code 1:"
    assert said in " ".join(printed.split())
    assert printed.splitlines()[-2] == f"{batch['lost_seeds'] * 4} of them crashed: lightball runs runs"


def test_crashes_of_one_rule_only(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They count against it: a rate that crashed while tuning is not chosen."""
    (batch,) = as_json(f"{command} --crash momentum", capsys)["batch_sizes"]
    assert batch["sgd"]["effective_lr"] is not None
    assert batch["sgdm"][0]["effective_lr"] is None
    unlucky = sum((seed >> 32) % 10 == 0 for seed in seeds("tune", 8))
    assert unlucky > 0
    assert {score["failed"] for score in batch["sgdm"][0]["tuning"]} == {unlucky}
    assert {score["failed"] for score in batch["sgd"]["tuning"]} == {0}
    assert "SGDM (β = 0.9) failed on some seed at every rate" in compare(f"{command} --crash momentum", capsys)


def test_a_seed_that_changes_nothing_is_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("descend.py")
    path.write_text(path.read_text().replace("random.Random(args.seed)", "random.Random(0)"))
    printed = " ".join(compare(command, capsys).split())
    assert "batch 32: all 12 runs of SGD ended at the same loss: does the seed change anything in them?" in printed


def test_a_measure_that_no_run_reports(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("descend.py")
    path.write_text(path.read_text().replace("test_accuracy", "tets_accuracy"))
    printed = compare(command, capsys)
    assert "Test accuracy: not reported." in printed
    assert "Test accuracy, at the rates" not in printed
    assert "Training loss: momentum has no value at batch size 32." in printed


def test_an_accuracy_in_percent_is_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("descend.py")
    path.write_text(path.read_text().replace('"test_accuracy": 1', '"test_accuracy": 100'))
    printed = " ".join(compare(command, capsys).split())
    assert (
        "the test accuracy of SGD is 100: report shares, from 0 to 1, or set --margin-accuracy in the unit" in printed
    )


def test_rates_at_which_all_runs_crash_do_not_agree(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("descend.py")
    path.write_text(
        path.read_text().replace("tenth =", "if args.lr / (1 - args.momentum) > 0.07: sys.exit(1)\ntenth =")
    )
    printed = " ".join(compare(command.replace("{torch_lr}", "{torch_lr}"), capsys).split())
    assert "run at equal rates, their losses agree up to η = 0.05" in printed
    assert "of them crashed: lightball runs runs" in printed


def test_a_script_that_never_works(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "--engine", "command", f"{command} --crash always", *OPTIONS.split()]
    assert main(arguments) == 2
    _, err = capsys.readouterr()
    assert err.startswith(
        "lightball: the first 8 runs all crashed, the last with: exit code 1: warming up | the node is"
    )
    assert err.count("\n") == 1
    assert len(list(Path("runs/chunks").iterdir())) <= 10


def test_retry_failed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What crashed for a passing reason is computed again, and only that."""
    crashing = f"env FAIL=1 {command}"
    source = Path("descend.py").read_text()
    Path("descend.py").write_text(f"import os\nif os.path.exists('full'): raise OSError('no room')\n{source}")
    whole = as_json(crashing, capsys)
    stored = len(list(Path("runs/chunks").iterdir()))
    assert as_json(crashing, capsys)["runs"] == {"computed": 0, "reused": stored, "crashed": 0}
    for path in list(Path("runs/chunks").iterdir())[:3]:
        path.unlink()
    Path("full").touch()
    failed = as_json(crashing, capsys)
    assert failed["runs"]["computed"] >= 3
    Path("full").unlink()
    assert as_json(crashing, capsys)["batch_sizes"] == failed["batch_sizes"]
    mended = as_json(crashing, capsys, "--retry-failed")
    assert mended["runs"]["computed"] >= 3
    assert mended["batch_sizes"] == whole["batch_sizes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["python train.py", "--engine", "command"], "the command has no {torch_lr} or {effective_lr}: without a rate"),
        (["digits", "--timeout", "3"], "timeout is 3, but only scripts have one: use it with --engine command"),
        (["digits", "--clip-norm", "1"], "clip-norm is 1.0, but the vectorised engine trains in float32, whole batch"),
        (["digits", "--engine", "ray"], "Invalid value for '--engine': 'ray' is not one of 'vectorised', 'process', "),
    ],
)
def test_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lightball: {message}")
    assert err.count("\n") == 1
