"""``lightball theory slow`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightball.cli.main import main

FAST = ["theory", "slow", "--etas", "0.2,0.1,0.06", "--slow-time", "1", "--trajectories", "500"]


def test_text_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "x² − y² at slow time 1 tends to" in " ".join(said.split())
    assert "the SDE gives 2.9205." in " ".join(said.split())
    assert max(map(len, said.splitlines()[:-1])) <= 80
    assert {path.name for path in tmp_path.iterdir()} >= {"slow.html", "slow-limit.png", "slow-way-1.svg"}
    assert "<title>" in (tmp_path / "slow.html").read_text(encoding="utf-8")


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "--out", str(tmp_path), "--no-page", "--json", "--seed", "4", "--momentum", "0.5"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said)[:5] == ["model", "slow_time", "observable", "slow_sde", "runs"]
    assert (said["seed"], said["momentum"], said["page"]) == (4, 0.5, None)
    assert [run["eta"] for run in said["runs"]] == pytest.approx([0.2, 0.1, 1 / 278**0.5])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "parabola"], "'parabola' is not one of 'hyperbola', 'diagonal-net', 'matrix'"),
        (["--etas", "0.1"], "the rates are 0.1; required are two or more different ones above 0"),
        (["--momentum", "1"], "momentum is 1; required is 0 < momentum < 1"),
        (["--trajectories", "1"], "trajectories is 1; required are at least 2"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "slow", *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
