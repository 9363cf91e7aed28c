"""`lightball theory svag`: text, JSON, files, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightball.cli.main import main

QUICK = ["theory", "svag", "--ells", "1,2,4", "--trajectories", "100", "--horizon", "12"]


def test_text_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(
        "With less curvature in a step SGD and SGDM come together: the gap of their\nlosses falls"
    )
    assert all(len(line) <= 80 for line in said.out.splitlines() if not line.startswith("page in"))
    assert "curvature-induced" in said.out
    assert f"page in {tmp_path / 'svag.html'}" in said.out
    names = ["svag-gap", "svag-terms", "svag-losses-1", "svag-losses-2", "svag-losses-4"]
    files = {f"{name}.{kind}" for name in names for kind in ("png", "svg")} | {"svag.html"}
    assert {path.name for path in tmp_path.iterdir()} == files


def test_json_with_the_sdes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--sde", "--json", "--no-page", "--out", str(tmp_path / "none")]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["gaps"]["largest"]["order"] == pytest.approx(1, abs=0.3)
    assert {pair["equation"] for pair in content["sde"]["pairs"]} == {"first order", "underdamped"}
    assert content["page"] is None
    assert not (tmp_path / "none").exists()


def test_the_seed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    def measured(seed: str) -> object:
        assert (
            main(["theory", "svag", "--ells", "1,2", "--trajectories", "0", "--json", "--no-page", "--seed", seed]) == 0
        )
        return json.loads(capsys.readouterr().out)["terms"]

    assert measured("1") == measured("1") != measured("2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--momentum", "1"],
            "momentum is 1; required is 0 < momentum < 1, since SGD without it is always beside it; 0.9 is usual",
        ),
        (["--ells", "0,1"], "ells are 0, 1; required are two or more different numbers ≥ 1: try 1,2,4"),
        (["--lr", "-1"], "the learning rate is -1 and the time 30; required is 0 < η ≤ T < ∞"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "svag", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err == f"lightball: {message}\n"
    assert said.out == ""
