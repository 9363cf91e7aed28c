"""`lightball advise`: card, page, JSON, checkpoints; a task so small that its probes take no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightball.cli.main import main

TASK = """
import torch
from torch import nn
from lightball import Data, Workload

generator = torch.Generator().manual_seed(0)
inputs = torch.randn(160, 6, generator=generator)
targets = (inputs[:, 0] + 0.5 * torch.randn(160, generator=generator) > 0).long()
data = Data(inputs, targets)

def make_task():
    return Workload("small", lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), data, data, data)

def with_batch_norm():
    def model():
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    return Workload("normed", model, data, data, data)
"""
USUAL = ["--lr", "0.02", "--momentum", "0.9", "--batch-size", "16", "--steps", "20", "--epochs", "4"]

Advise = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to run in, with the task file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(TASK)
    return tmp_path


@pytest.fixture
def advise(folder: Path, capsys: pytest.CaptureFixture[str]) -> Advise:
    """What ``lightball advise my_task.py:make_task`` prints."""

    def advise(*arguments: str, task: str = "make_task") -> str:
        status = main(["advise", f"my_task.py:{task}", *USUAL, *arguments])
        out, err = capsys.readouterr()
        assert status == 0, err
        assert err == ""
        return out

    return advise


def test_card_page_and_figures(advise: Advise, folder: Path) -> None:
    lines = advise().splitlines()
    assert lines[-1] == "page in lightball-advice/advise.html, its figures beside it"
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    for name in ("regime", "momentum here", "best tuned", "critical batch", "without momentum", "memory saved"):
        assert any(line.startswith(f"  {name}  ") for line in lines)
    assert any("SGD at lr 0.2" in line for line in lines)
    page = (folder / "lightball-advice" / "advise.html").read_text()
    assert page.startswith("<!doctype html>")
    for name in ("value-map", "forecast", "spectra-1", "spectra-2", "spectra-3"):
        assert f'"figure:{name}"' in page
        assert (folder / "lightball-advice" / f"{name}.png").stat().st_size > 1000
        assert (folder / "lightball-advice" / f"{name}.svg").exists()


def test_json_has_the_schema(advise: Advise, folder: Path) -> None:
    found: dict[str, Any] = json.loads(advise("--json", "--no-page"))
    assert found["regime"] in ("noise-dominated", "curvature-dominated", "mixed", "not determined")
    assert set(found["terms"]) == {"descent", "curvature", "noise"}
    assert found["terms"]["descent"] < 0 < found["terms"]["noise"]
    value = found["value_of_momentum"]
    assert {"verdict", "difference", "ci95", "valid", "reason"} <= set(value)
    assert value["verdict"] in ("no value", "helps", "hurts", "undecided")
    assert value["ci95"][0] <= value["difference"] <= value["ci95"][1]
    assert value["num_steps"] == 20
    assert {"verdict", "difference"} <= set(found["best_tuned"])
    assert found["best_tuned"]["epochs"] == 4
    assert "critical_batch_size" in found
    assert found["matched_lr"] == pytest.approx(0.2)
    assert found["memory_saved_bytes"] == 4 * (6 * 4 + 4 + 4 * 2 + 2)
    assert {"sharpness", "trace_noise", "noise_scale"} <= set(found["probe"])
    assert [phase["name"] for phase in found["phases"]] == ["start", "middle", "end"]
    assert found["setting"]["effective_lr"] == pytest.approx(0.2)
    assert found["answer"]
    assert found["page"] is None
    assert not (folder / "lightball-advice").exists()


def test_runs_repeat_by_seed_and_quiet_is_the_answer(advise: Advise) -> None:
    first = json.loads(advise("--json", "--no-page", "--seed", "3"))
    assert json.loads(advise("--json", "--no-page", "--seed", "3")) == first
    assert json.loads(advise("--json", "--no-page"))["terms"] != first["terms"]
    assert advise("--quiet", "--no-page", "--seed", "3") == first["answer"] + "\n"


def test_a_checkpoint_is_probed_where_it_is(advise: Advise, folder: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    save_file(model.state_dict(), folder / "weights.safetensors")
    found = json.loads(advise("--checkpoint", "weights.safetensors", "--json", "--no-page"))
    namespace: dict[str, Any] = {}
    exec(TASK, namespace)
    loss = nn.functional.cross_entropy(model(namespace["inputs"]), namespace["targets"]).item()
    assert found["probe"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert [phase["name"] for phase in found["phases"]] == ["checkpoint"]


def test_verified_the_measurement_stands_beside_the_forecast(advise: Advise, folder: Path) -> None:
    """At a checkpoint pairs of runs alone; runs from initial weights are compared where `compare` is tested."""
    torch.manual_seed(1)
    save_file(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).state_dict(), folder / "weights.safetensors")
    options = ["--checkpoint", "weights.safetensors", "--no-page", "--verify"]
    found = json.loads(advise(*options, "--json"))
    check = found["verification"]["equal_rates"]
    assert check["forecast"]["difference"] == found["value_of_momentum"]["difference"]
    assert check["measured"]["low"] < check["measured"]["mean"] < check["measured"]["high"]
    assert check["measured"]["mean"] == pytest.approx(check["forecast"]["difference"], rel=0.5)
    assert " ".join(advise(*options).split()).endswith(check["sentence"])


def test_options_reach_the_forecast(advise: Advise) -> None:
    usual = json.loads(advise("--json", "--no-page"))
    ema = json.loads(advise("--lr", "0.2", "--from", "ema", "--json", "--no-page"))
    here = ema["value_of_momentum"]["difference"]
    assert here == pytest.approx(usual["value_of_momentum"]["difference"], rel=1e-6)
    assert ema["setting"]["convention"] == "ema"
    ggn = json.loads(advise("--curvature", "ggn", "--json", "--no-page"))
    assert ggn["probe"]["curvature"] == "ggn"
    assert ggn["probe"]["smallest"] > usual["probe"]["smallest"]
    iid = json.loads(advise("--sampling", "iid", "--json", "--no-page"))
    assert iid["value_of_momentum"]["difference"] != usual["value_of_momentum"]["difference"]
    wide = json.loads(advise("--margin", "5", "--json", "--no-page"))
    assert wide["value_of_momentum"]["margin"] == 5
    assert wide["best_tuned"]["verdict"] == "no value" != usual["best_tuned"]["verdict"]


def test_models_that_cannot_be_vectorised_are_fine(advise: Advise) -> None:
    assert json.loads(advise("--json", "--no-page", task="with_batch_norm"))["probe"]["mode"] == "eval"


REFUSED = [
    (["--lr", "0"], "lr is 0, but must be a finite number above 0"),
    (["--lr", "-1"], "lr is -1, but must be a finite number above 0"),
    (["--lr", "nan"], "lr is nan, but must be a finite number above 0"),
    (["--lr", "inf"], "lr is inf, but must be a finite number above 0"),
    (["--lr", "fast"], "Invalid value for '--lr': 'fast' is not a valid float"),
    (["--momentum", "0"], "momentum is 0, but must be above 0 and below 1: without momentum there is none to drop"),
    (["--momentum", "1"], "momentum is 1; required is 0 ≤ momentum < 1"),
    (["--momentum", "-0.5"], "momentum is -0.5; required is 0 ≤ momentum < 1"),
    (["--batch-size", "0"], "Invalid value for '--batch-size': 0 is not in the range x>=1"),
    (["--batch-size", "161"], "batch size 161 does not fit the 160 training examples: choose one between 1 and 160"),
    (["--steps", "0"], "Invalid value for '--steps': 0 is not in the range x>=1"),
    (["--epochs", "0"], "Invalid value for '--epochs': 0 is not in the range x>=1"),
    (["--margin", "0"], "margin is 0"),
    (["--margin", "nan"], "margin is nan"),
    (["--from", "adam"], "unknown convention 'adam'; valid are torch"),
    (["--from", "sgd"], "momentum is 0.9 in convention 'sgd', which has none"),
    (["--sampling", "sorted"], "Invalid value for '--sampling': 'sorted' is not one of"),
    (["--curvature", "fisher"], "Invalid value for '--curvature': 'fisher' is not one of"),
    (["--device", "tpu"], "device is 'tpu', but must be "),
    (["--checkpoint", "gone.safetensors"], "there is no checkpoint 'gone.safetensors'"),
    (["--checkpoint", "my_task.py"], "cannot read the checkpoint 'my_task.py'"),
    (["--checkpoint", "other.safetensors"], "the checkpoint 'other.safetensors' does not fit the model: missing: "),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(
        {"0.weight": torch.zeros(4, 6), "2.weight": torch.zeros(3, 4), "odd": torch.zeros(1)},
        folder / "other.safetensors",
    )
    assert main(["advise", "my_task.py:make_task", *USUAL, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lightball: {message}")
    assert err.count("\n") == 1
    assert not (folder / "lightball-advice").exists()


def test_a_checkpoint_that_does_not_fit_lists_its_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(
        {"0.weight": torch.zeros(4, 6), "2.weight": torch.zeros(3, 4), "odd": torch.zeros(1)},
        folder / "other.safetensors",
    )
    assert main(["advise", "my_task.py:make_task", *USUAL, "--checkpoint", "other.safetensors"]) == 2
    said = capsys.readouterr().err
    for part in ("missing: 0.bias, 2.bias", "unexpected: odd", "wrong shape: 2.weight (3, 4) for (2, 4)"):
        assert part in said


@pytest.mark.parametrize("arguments", [[], ["digits"], ["digits", "--lr", "0.1"]])
def test_what_is_missing_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", *arguments]) == 2
    assert "lightball: Missing " in capsys.readouterr().err


def test_an_unknown_task_lists_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "nothing", *USUAL]) == 2
    assert "unknown task 'nothing': choose one of digits, digits-conv" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "--help"]) == 0
    assert "lightball advise digits --lr 0.1 --momentum 0.9 --batch-size 64" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "lightball advise digits --lr 0.1 --momentum 0.9 --batch-size 64" in capsys.readouterr().out


def test_interrupted_it_says_so_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightball.forecast.phases.phases_of", interrupted)
    assert main(["advise", "my_task.py:make_task", *USUAL]) == 130
    assert capsys.readouterr().err.strip() == "lightball: interrupted"
    assert not (folder / "lightball-advice").exists()
