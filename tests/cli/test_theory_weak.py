"""`lightball theory weak` and `lightball theory schedule` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightball.cli.main import main

FEW = ["--etas", "0.0625,0.03125,0.015625"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["weak", *FEW, "--trajectories", "100"], ["weak-orders", "weak-errors"]),
        (
            ["schedule", *FEW],
            ["schedule-errors", "schedule-rates", "schedule-momentum", "schedule-square"],
        ),
    ],
)
def test_text_page_and_figures(
    arguments: list[str], names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["theory", *arguments, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("page in"))
    assert any("order" in line for line in lines)
    page = (tmp_path / f"{arguments[0]}.html").read_text()
    assert page.startswith("<!doctype html>")
    for name in names:
        assert name in page
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / f"{name}.svg").exists()


def test_weak_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["theory", "weak", "--alpha", "0,1,1.5", *FEW, "--trajectories", "100", "--json", "--no-page"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [result["alpha"] for result in content["results"]] == [0, 1, 1.5]
    assert [result["theorem"] for result in content["results"]] == [0.5, 0, None]
    for result in content["results"]:
        low, high = result["ci95"]
        assert low <= result["order"] <= high
        assert [set(point) for point in result["points"]] == [{"eta", "error", "se", "used"}] * 3
    assert content["page"] is None
    assert list(tmp_path.iterdir()) == []


def test_another_loss_and_noise_by_seed(capsys: pytest.CaptureFixture[str]) -> None:
    def run(seed: str) -> str:
        arguments = ["--loss", "cosine", "--noise", "rademacher", *FEW, "--trajectories", "200", "--seed", seed]
        assert main(["theory", "weak", *arguments, "--json", "--no-page", "--device", "cpu"]) == 0
        return capsys.readouterr().out

    one = run("1")
    assert one == run("1")
    assert one != run("2")
    assert json.loads(one)["method"] == "simulated"


def test_schedule_as_json_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "schedule", *FEW, "--momentum", "cycle:6:0,0.9", "--json", "--no-page"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["momentum"] == "cycle:6:0,0.9"
    assert content["ratios"][-1] < 0.5
    seeded = [*FEW, "--trajectories", "50", "--seed", "7", "--device", "cpu"]
    assert main(["theory", "schedule", *seeded, "--json", "--no-page"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["trajectories"], content["seed"]) == (50, 7)
    assert len(content["results"][0]["simulated"]["x"]) == 3
    assert main(["theory", "schedule", *FEW, "--quiet", "--no-page"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weak", "--alpha", "-1"], "alpha is -1; required is a finite number ≥ 0"),
        (["weak", "--alpha", "inf"], "alpha is inf; required"),
        (["weak", "--alpha", "half"], "'half' is not a list of numbers"),
        (["weak", "--etas", "0.1"], "required are two or more different"),
        (["weak", "--trajectories", "3"], "trajectories is 3; required are at least 40"),
        (["weak", "--device", "tpu"], "tpu"),
        (["schedule", "--schedule", "sometimes"], "unknown schedule 'sometimes'"),
        (["schedule", "--momentum", "restarts"], "unknown momentum 'restarts'"),
        (["schedule", "--device", "tpu"], "tpu"),
        (["schedule", "--trajectories", "3"], "trajectories is 3; required are at least 40"),
        (["schedule", "--etas", "3,0.1"], "above 0 and up to T = 2"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", *arguments, "--no-page"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
