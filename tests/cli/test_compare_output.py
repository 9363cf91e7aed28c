"""What `lightball compare` prints, where, and how wide."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lightball import __version__
from lightball.cli.main import lightball, main
from lightball.cli.progress import Progress
from lightball.report.text import plan_text, result_text, verdict_text
from lightball.stats import Decision, Interval, Verdict
from lightball.studies.plan import BatchPlan, Plan
from lightball.studies.result import JUDGED, Arm, BatchResult, Pairing, Result, Speed
from lightball.studies.settings import Settings

TINY = shlex.split(
    "compare digits --batch-sizes 64 --epochs 1 --stages 6 --tuning-seeds 1 --lr 0.2,0.4 --max-extensions 1 "
    "--compile off --workers 1 --out runs"
)
HEADER = r" +batch +β +SGD η +SGDM η +SGD +SGDM +value of momentum +verdict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study below is, computed once by a process of its own."""
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def first(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lightball", *TINY]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.fixture
def again(first: object, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Prints of the same study, found in its folder."""
    monkeypatch.chdir(folder)

    def again(*arguments: str) -> str:
        assert main([*TINY, *arguments]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        return out

    return again


class TestPrints:
    def test_plan_tables_and_answer(self, first: subprocess.CompletedProcess[str]) -> None:
        assert first.returncode == 0
        lines = first.stdout.splitlines()
        assert lines[0] == "Does digits need momentum? SGD against SGDM with β = 0.9"
        assert any(re.match(r"  steps +at least [\d,]+", line) for line in lines)
        assert "  results in     runs" in lines
        assert sum(re.fullmatch(HEADER, line) is not None for line in lines) == 2
        assert any(line.startswith("Training loss: momentum ") for line in lines)
        assert any(line.startswith("Test accuracy: momentum ") for line in lines)
        assert re.match(r"\d+ runs computed, 0 found, in \d+ s", lines[-2])
        assert lines[-1] == "report in runs/report.html"

    def test_nothing_on_standard_error_that_is_no_terminal(self, first: subprocess.CompletedProcess[str]) -> None:
        assert first.stderr == ""

    def test_no_control_characters_and_80_columns(self, first: subprocess.CompletedProcess[str]) -> None:
        for line in first.stdout.splitlines():
            assert line.isprintable() or line == ""
            assert len(line) <= 80

    def test_found_again(self, again: Any) -> None:
        assert re.search(r"^0 runs computed, [1-9]\d* found, in \d+ s$", again(), re.MULTILINE)

    def test_json_is_one_object_and_nothing_else(self, again: Any) -> None:
        value = json.loads(again("--json"), parse_constant=pytest.fail)
        assert value["task"] == "digits"
        assert value["runs"]["computed"] == 0
        assert json.loads(again("--json", "--quiet"))["batch_sizes"] == value["batch_sizes"]

    def test_quiet_is_the_verdict_only(self, again: Any) -> None:
        first, second = again("--quiet").splitlines()
        assert first.startswith("Training loss: momentum ")
        assert second.startswith("Test accuracy: momentum ")

    def test_from_a_toml_file(self, again: Any, folder: Path) -> None:
        """All options by the same names, in a file."""
        (folder / "study.toml").write_text(
            "batch-sizes = [64]\nepochs = 1\nstages = [6]\ntuning_seeds = 1\nlr = [0.2, 0.4]\nmax-extensions = 1\n"
            'compile = "off"\nworkers = 1\nout = "runs"\njson = true\ndevice = "cpu"\nweight-decay = 0\n'
        )
        runner = CliRunner()
        done = runner.invoke(lightball, ["compare", "digits", "--config", "study.toml"], standalone_mode=False)
        assert json.loads(done.stdout)["runs"]["computed"] == 0


class TestProgress:
    def test_silent_without_a_terminal(self, capfd: pytest.CaptureFixture[str]) -> None:
        with Progress(enabled=True) as progress:
            for phase in ("tuning", "confirming"):
                progress.begin(phase, 2.0)
                progress.advance(1.0)
        assert capfd.readouterr() == ("", "")

    def test_a_phase_without_work(self, capfd: pytest.CaptureFixture[str]) -> None:
        with Progress(enabled=True) as progress:
            progress.begin("tuning", 0.0)
        assert capfd.readouterr() == ("", "")

    def test_what_the_user_should_know_is_said_without_a_terminal_too(self, capfd: pytest.CaptureFixture[str]) -> None:
        with Progress(enabled=False) as progress:
            progress.say("[chunks/x] is damaged")
        assert capfd.readouterr() == ("", "lightball: [chunks/x] is damaged\n")


class TestHelp:
    @pytest.mark.parametrize("command", [[], ["compare"], ["convert"]])
    def test_has_an_example(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*command, "--help"]) == 0
        help_text = capsys.readouterr().out
        assert re.search(r"Examples?:\n +lightball (compare|convert) ", help_text)
        assert max(map(len, help_text.splitlines())) <= 100

    def test_defaults_in_the_help_are_those_of_the_settings(self) -> None:
        shown = CliRunner().invoke(lightball, ["compare", "--help"], terminal_width=300, max_content_width=300)
        words = " ".join(shown.output.partition("Options:")[2].split())
        for name, default in vars(Settings()).items():
            option = name.replace("_", "-")
            values = default if isinstance(default, tuple) else (default,)
            text = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
            text = {"drop_last": "drop-last", "in_backward": "no-in-backward"}.get(name, text)
            after = words[words.index(f"--{option}") :]
            assert after[after.index("[default: ") :].startswith(f"[default: {text}]"), option

    def test_version_does_not_wait_for_torch(self) -> None:
        code = (
            "import sys; from lightball.cli.main import main; status = main(['--version']);"
            "sys.exit(status or 'torch' in sys.modules or 'pyarrow' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"lightball, version {__version__}\n", "")

    def test_help_does_not_wait_for_torch(self) -> None:
        code = (
            "import sys; from lightball.cli.main import main; main(['compare', '--help']);"
            "sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def arm(momentum: float, lr: float | None, loss: float | None, accuracy: float | None, failed: int = 0) -> Arm:
    return Arm(momentum, lr, True, loss, 0.01, accuracy, 0.01, 64, failed, (2.3, 1.0), ())


def made_up(rows: dict[int, dict[float, Verdict]], loss: float = 0.3, mean: float = 0.1, lr: float = 0.4) -> Result:
    """A result with these verdicts, on both measures; intervals are mean ± |mean| / 2."""
    momenta = tuple(next(iter(rows.values())))
    settings = Settings(batch_sizes=tuple(rows), momentum=momenta)
    batches = []
    for b, row in rows.items():
        pairings = []
        for momentum, verdict in row.items():
            interval = Interval(mean, mean - abs(mean) / 2, mean + abs(mean) / 2, 0.99, 64)
            needed = 123_456 if verdict is Verdict.UNDECIDED else None
            decision = Decision(verdict, interval, 0.02, 3, True, needed)
            speed = Speed(loss, 23.4, 12.3)
            pairings.append(Pairing(arm(momentum, lr, loss, 0.9, 12), dict.fromkeys(JUDGED, decision), 123.456, speed))
        sgd = arm(0.0, lr, loss, 1.0, 64)
        batches.append(BatchResult(b, {"train_loss": 0.02, "test_accuracy": 0.005}, sgd, tuple(pairings), ()))
    return Result("made-up", settings, tuple(batches), 3600.0, 123_456, 123_456, "here")


NO, HELPS, HURTS, OPEN = Verdict.NO_VALUE, Verdict.HELPS, Verdict.HURTS, Verdict.UNDECIDED


class TestWidth:
    numbers = st.floats(-1e12, 1e12) | st.floats(-1e-3, 1e-3) | st.sampled_from([0.0, 9.99996, 99.996, 9999.6, -1e-9])

    @given(numbers, numbers, st.floats(1e-8, 1e3), st.sampled_from([8, 65536]), st.sampled_from([0.9, 0.9999]))
    def test_rows_stay_aligned_whatever_the_numbers(
        self, loss: float, mean: float, lr: float, batch: int, momentum: float
    ) -> None:
        lines = result_text(made_up({batch: {momentum: OPEN}}, loss, mean, lr)).splitlines()
        assert max(map(len, lines)) <= 80
        assert {len(lines[1]), len(lines[2])} == {80}

    @given(st.lists(st.sampled_from(list(Verdict)), min_size=18, max_size=18))
    def test_many_batch_sizes_and_momenta(self, verdicts: list[Verdict]) -> None:
        draw = iter(verdicts)
        rows = {b: {m: next(draw) for m in (0.5, 0.9, 0.99)} for b in (8, 32, 128, 512, 2048, 8192)}
        assert max(map(len, result_text(made_up(rows)).splitlines())) <= 80

    def test_rules_without_a_rate(self) -> None:
        empty = Arm(0.0, None, True, None, None, None, None, 0, 0, (), ())
        pairing = Pairing(Arm(0.9, None, True, None, None, None, None, 0, 0, (), ()), {}, None, None)
        settings = Settings(batch_sizes=(8, 32))
        batches = (
            BatchResult(8, None, empty, (pairing,), ()),
            BatchResult(32, {"train_loss": 0.02, "test_accuracy": 0.005}, empty, (pairing,), ()),
        )
        text = result_text(Result("made-up", settings, batches, 1.0, 1, 0, "here"))
        assert "batch 8: no rate trained; try others with --lr" in text
        assert "batch 32: SGD failed on some seed at every rate" in text
        assert "batch 32: SGDM (β = 0.9) failed on some seed at every rate" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_plan_with_long_lists(self) -> None:
        sizes, momenta = tuple(2**i for i in range(3, 17)), tuple(1 - 2.0**-i for i in range(1, 12))
        settings = Settings(batch_sizes=sizes, momentum=momenta)
        plan = Plan(tuple(BatchPlan(b, 10**6, 28, True, 10**5, (10**5, 10**6), 999.0) for b in sizes), 64)
        lines = plan_text("some/where/my_task.py:make_task", settings, plan, Path("runs/mine")).splitlines()
        assert max(map(len, lines)) <= 80
        assert all(str(b) in " ".join(lines) for b in sizes)

    def test_what_is_not_as_by_default_is_said(self) -> None:
        plan = Plan((BatchPlan(512, 32, 1, False, 10, (10, 10), 1.0),), 1)
        settings = Settings(batch_sizes=(512,), engine="process", ell=4, schedule="cosine")
        text = " ".join(plan_text("digits", settings, plan, Path("here")).split())
        assert "training engine process, ell 4, schedule cosine" in text
        assert "training" not in plan_text("digits", Settings(batch_sizes=(512,)), plan, Path("here"))

    def test_runs_that_are_short_beside_the_memory_of_momentum(self) -> None:
        def said(steps: int | None) -> str:
            plan = Plan((BatchPlan(512, steps, 1, False, 10, (10, 10), 1.0),), 1)
            return " ".join(plan_text("digits", Settings(batch_sizes=(512,)), plan, Path("here")).split())

        assert "a run has 39 steps at batch size 512, few beside momentum's memory of 10" in said(39)
        assert "few beside" not in said(40)
        assert "few beside" not in said(None)

    def test_a_path_stays_in_one_piece(self) -> None:
        """It is copied from there."""
        path = Path("/a-very/long-path" * 9)
        settings = Settings(batch_sizes=(8,))
        plan = Plan((BatchPlan(8, 10, 28, False, 10, (10, 10), 1.0),), 1)
        assert str(path) in plan_text("digits", settings, plan, path)


class TestSum:
    @pytest.mark.parametrize(
        ("rows", "expected"),
        [
            ({8: NO, 32: NO, 128: HELPS, 512: HELPS}, "has no value up to batch size 32, helps from 128 on"),
            ({8: NO, 32: NO}, "has no value up to batch size 32"),
            ({8: HELPS, 32: HELPS}, "helps from 8 on"),
            ({8: NO, 32: OPEN, 128: HELPS}, "has no value up to batch size 8, helps from 128 on, undecided at 32"),
            ({8: HURTS, 32: NO}, "hurts at 8, has no value at 32"),
            ({8: HELPS, 32: NO}, "helps at 8, has no value at 32"),
            ({64: OPEN}, "undecided at 64"),
        ],
    )
    def test_one_momentum(self, rows: dict[int, Verdict], expected: str) -> None:
        text = verdict_text(made_up({b: {0.9: v} for b, v in rows.items()}))
        assert " ".join(text.split()) == f"Training loss: momentum {expected}. Test accuracy: momentum {expected}."

    def test_several_momenta_are_named(self) -> None:
        text = verdict_text(made_up({8: {0.9: NO, 0.99: HURTS}, 512: {0.9: HELPS, 0.99: OPEN}}))
        assert " ".join(text.split()).startswith(
            "Training loss: momentum helps from 512 on, has no value at 8 with β = 0.9, hurts at 8 with β = 0.99, "
            "undecided at 512 with β = 0.99. Test"
        )

    def test_every_verdict_is_said(self) -> None:
        """Whatever the pattern, no batch size is passed over."""
        for first in Verdict:
            for second in Verdict:
                text = verdict_text(made_up({8: {0.9: first}, 32: {0.9: second}}))
                assert re.search(r"\b8\b", text) or (first is second is NO)
                assert re.search(r"\b32\b", text) or (first is second is HELPS)


def test_nothing_infinite_is_printed() -> None:
    result = made_up({8: {0.9: NO}})
    pairing = result.batches[0].pairings[0]
    odd = Pairing(pairing.arm, pairing.decisions, math.nan, pairing.speed)
    batch = BatchResult(8, result.batches[0].margins, result.batches[0].sgd, (odd,), ())
    text = result_text(Result("made-up", result.settings, (batch,), 1.0, 1, 0, "here"))
    assert "nan" not in text
