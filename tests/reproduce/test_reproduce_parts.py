"""How experiments are run: parts, plans, budgets, and what a command prints."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

from fabricated import World, study
from lightball.cli.main import lightball, main
from lightball.cli.reproduce.options import SCALES as SHOWN
from lightball.cli.reproduce.options import Common, common_options
from lightball.cli.reproduce.running import Experiment, carry_out
from lightball.errors import InputError, OutOfTime
from lightball.report.page import Page
from lightball.report.reproduce.plan import plan_json, plan_text
from lightball.reproduce import parts as under_test
from lightball.reproduce.parts import Part, PartPlan, plan_parts, read_parts, run_parts
from lightball.reproduce.scales import SCALES, preset
from lightball.studies.plan import BatchPlan, Plan
from lightball.studies.settings import Settings

SETTINGS = Settings(batch_sizes=(8,), lr=(0.2, 0.4, 0.8), stages=(6,), tuning_seeds=1, engine="process")
PLAN = Plan((BatchPlan(8, 100, 1, False, 4, (12, 20), 30.0, False, 2_000_000_000),), num_workers=2)
PARTS = [Part(name, lambda name=name: f"task {name}", SETTINGS) for name in ("a", "b", "c")]  # type: ignore[misc]


class Phases:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, phase: str, work: float) -> None:
        self.said.append(phase)

    def advance(self, work: float) -> None: ...

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What comparisons are asked for; each makes up its runs."""
    calls: list[dict[str, Any]] = []

    def compare(task: Any, *, out: Path, observer: Any, on_plan: Any, settings: Settings, **others: Any) -> None:
        calls.append({"task": task, "out": out, "settings": settings, **others})
        on_plan(task, PLAN, out)
        observer.begin("tuning", 1.0)
        observer.say("hm")
        study(settings, World(), out)

    monkeypatch.setattr(under_test.api, "compare", compare)
    return calls


def test_parts_run_in_their_order_each_in_its_folder(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    observer, planned = Phases(), []
    found = run_parts(
        PARTS, out=tmp_path, workers=3, observer=observer, on_plan=lambda *plan: planned.append(plan), keep_runs=True
    )

    assert [call["task"] for call in asked] == ["task a", "task b", "task c"]
    assert [call["out"] for call in asked] == [tmp_path / name for name in "abc"]
    assert all((call["workers"], call["keep_runs"], call["deadline"]) == (3, True, None) for call in asked)
    assert observer.said == [f"{name}: {word}" for name in "abc" for word in ("tuning", "hm")]
    assert planned == [(f"task {name}", PLAN, tmp_path / name) for name in "abc"]
    assert found.finished
    assert list(found.studies) == ["a", "b", "c"]


def test_parts_that_have_no_run_are_missing(tmp_path: Path) -> None:
    study(SETTINGS, World(), tmp_path / "b")
    (tmp_path / "c").mkdir()
    found = read_parts(PARTS, out=tmp_path)
    assert list(found.studies) == ["b"]
    assert not found.finished
    assert found.studies["b"].finished
    assert not read_parts(PARTS, out=tmp_path / "none").studies


def test_later_parts_do_not_begin_without_time_for_a_run(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    soon = time.time() + 10  # less than the 30 s of a run
    found = run_parts(PARTS, out=tmp_path, deadline=soon)
    assert list(found.studies) == ["a"]
    assert not found.finished
    assert [call["task"] for call in asked] == ["task a", "task b"]
    assert run_parts(PARTS, out=tmp_path, deadline=soon, keep_runs=True).finished  # those stop by themselves
    assert run_parts(PARTS, out=tmp_path, deadline=time.time() + 100).finished


def test_a_part_that_runs_out_of_time_ends_it_cleanly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def compare(*_: Any, **__: Any) -> None:
        raise OutOfTime("later")

    monkeypatch.setattr(under_test.api, "compare", compare)
    found = run_parts(PARTS, out=tmp_path, deadline=1.0)
    assert (dict(found.studies), found.finished) == ({}, False)


def test_each_part_is_planned_where_it_will_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def plan(task: Any, settings: Settings, **others: Any) -> Plan:
        calls.append((task, settings, others))
        return PLAN

    monkeypatch.setattr(under_test.api, "plan", plan)
    found = plan_parts(PARTS, out=tmp_path, device="cpu", workers=2, keep_runs=True)
    assert found == [PartPlan(name, PLAN) for name in "abc"]
    assert [task for task, *_ in calls] == ["task a", "task b", "task c"]
    assert calls[1][2] == {"device": "cpu", "workers": 2, "out": tmp_path / "b", "keep_runs": True}


def test_a_plan_says_runs_steps_time_and_memory() -> None:
    plans = [PartPlan("first", PLAN), PartPlan("second", replace(PLAN, num_workers=1))]
    lines = plan_text("Something", plans, Path("here")).splitlines()
    assert lines[0] == "Something"
    assert lines[2].split("  ") != lines[3].split("  ")
    assert " ".join(lines[2].split()) == "first 16 to 24 1,600 about 4 min to 6 min 4.0 GB"
    assert " ".join(lines[3].split()) == "second 16 to 24 1,600 about 8 min to 12 min 2.0 GB"
    assert " ".join(lines[4].split()) == "in all 32 to 48 3,200 about 12 min to 18 min 4.0 GB"
    assert lines[5] == "  on 2 workers; results in here"

    content = json.loads(json.dumps(plan_json(plans)))
    assert content["in_all"] == {"runs": [32, 48], "steps": 3200, "seconds": [720.0, 1080.0], "memory": 4e9}
    assert content["parts"]["first"]["memory"] == 2e9


def test_what_is_not_known_of_a_plan_is_left_open() -> None:
    unknown = Plan((replace(PLAN.batches[0], seconds_per_run=None, steps_per_run=None, memory=None),), 1)
    text = plan_text("Something", [PartPlan("first", PLAN), PartPlan("second", unknown)], Path("here"))
    assert " ".join(text.splitlines()[4].split()) == "in all 32 to 48 – – –"


def test_a_preset_takes_what_is_given() -> None:
    presets = {"smoke": Settings(epochs=1), "cpu": Settings(epochs=2)}
    assert preset(presets, "cpu", tuning_seeds=3, epochs=None) == Settings(epochs=2, tuning_seeds=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scale is 'paper', but must be one of smoke, cpu"):
        preset(presets, "paper")  # type: ignore[arg-type]
    assert SHOWN == SCALES


@dataclass(frozen=True)
class Told:
    """A result that says one thing."""

    finished: bool

    def as_json(self) -> dict[str, Any]:
        return {"finished": self.finished}


def command(run: Any, monkeypatch: pytest.MonkeyPatch, told: list[Any]) -> None:
    """`lightball made-up`, whose runs are ``run``."""

    @click.command("made-up")
    @common_options("made-up")
    def made_up(common: Common) -> int:
        told.append(common)
        return carry_out(
            Experiment(
                name="made-up",
                title="Something made up",
                plan=lambda **how: told.append(how) or [PartPlan("first", PLAN)],
                run=run,
                read=lambda out: Told(False),
                page=lambda found: Page("title", "the answer", notice="" if found.finished else "half done"),
            ),
            common,
        )

    monkeypatch.setitem(lightball.commands, "made-up", made_up)


def test_a_command_prints_the_plan_and_the_result_and_writes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    command(lambda **how: told.append(how) or Told(True), monkeypatch, told)
    out = tmp_path / "out"
    asked = ["made-up", "--out", str(out), "--device", "cpu", "--workers", "2"]

    before = time.time()
    assert main([*asked, "--time-budget", "2", "--scale", "gpu", "--data", "here"]) == 0
    said = capsys.readouterr().out
    common, planned, ran = told
    assert (common.scale, common.data) == ("gpu", Path("here"))
    assert planned == {"out": out, "device": "cpu", "workers": 2}
    assert {name: ran[name] for name in planned} == planned
    assert 120 <= ran["deadline"] - before < 150
    assert said.startswith("Something made up\n")
    assert "the answer" in said
    assert "half done" not in said
    assert json.loads((out / "made-up.json").read_text()) == {"finished": True}
    assert (out / "made-up.html").is_file()

    assert main([*asked, "--quiet", "--no-page"]) == 0
    assert capsys.readouterr().out == "the answer\n"
    assert told[-1]["deadline"] is None
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "the answer"


def test_a_plan_alone_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(None, monkeypatch, [])
    assert main(["made-up", "--out", str(tmp_path / "none"), "--plan", "--quiet"]) == 0
    assert "16 to 24" in capsys.readouterr().out
    assert main(["made-up", "--out", str(tmp_path / "none"), "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["in_all"]["steps"] == 1600
    assert not (tmp_path / "none").exists()


def test_a_spent_budget_and_ctrl_c_show_what_there_is_and_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["made-up", "--out", str(tmp_path), "--time-budget", "5"]
    monkeypatch.setattr("sys.argv", ["lightball", *arguments])
    go_on = f"what is finished is kept; go on with: lightball made-up --out {tmp_path} --time-budget 5\n"

    command(lambda **how: Told(False), monkeypatch, [])
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "half done" in said.out
    assert said.err == f"lightball: the time budget of 5 min is spent; {go_on}"

    def interrupted(**how: Any) -> Told:
        raise KeyboardInterrupt

    command(interrupted, monkeypatch, [])
    assert main(arguments) == 130
    said = capsys.readouterr()
    assert "half done" in said.out
    assert said.err == f"lightball: interrupted; {go_on}"


@pytest.mark.parametrize("options", [["--scale", "huge"], ["--time-budget", "0"], ["--workers", "0"]])
def test_options_out_of_range_are_refused(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(None, monkeypatch, [])
    assert main(["made-up", *options]) == 2
    assert options[0] in capsys.readouterr().err
