"""`lightball theory variance` and `stability`: text, JSON, page and figures, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightball.cli.main import main

COMMANDS = {
    "variance": ["theory", "variance", "--momentum", "0.5,0.9", "--steps", "50", "--trajectories", "200"],
    "stability": ["theory", "stability", "--momentum", "0,0.9", "--steps", "200", "--trajectories", "64"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_prints_its_answer_and_writes_its_page(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMANDS[name], "--out", str(tmp_path), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "0.9" in out.splitlines()[0]
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.html", f"{name}.png", f"{name}.svg"}
    assert f"page in {tmp_path / f'{name}.html'}" in out
    assert main([*COMMANDS[name], "--no-page", "--quiet", "--device", "cpu"]) == 0
    answer = capsys.readouterr().out
    assert " ".join(out.split()).startswith(answer.strip())


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_one_object_and_options_reach_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def value(*options: str) -> dict[str, object]:
        assert main([*COMMANDS[name], "--json", "--no-page", "--device", "cpu", *options]) == 0
        return json.loads(capsys.readouterr().out)

    one, again, other = value("--seed", "1"), value("--seed", "1"), value("--seed", "2")
    assert one == again
    assert one["page"] is None
    assert [each["momentum"] for each in one["results"]] == ([0.5, 0.9] if name == "variance" else [0.0, 0.9])
    if name == "variance":
        assert one["results"] != other["results"]
    else:
        steep = value("--curvature", "10")["results"]
        assert steep[0]["exact"] == pytest.approx(0.2)
        assert steep[0]["simulated"] == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["variance", "--momentum", "1.5"], "lightball: momentum is 1.5; required is 0 ≤ momentum < 1: try 0.9"),
        (["variance", "--momentum", "much"], "'much' is not a list of numbers"),
        (["stability", "--curvature", "-1"], "lightball: curvature is -1; required is a number from 1e-100"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", *arguments, "--no-page"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
