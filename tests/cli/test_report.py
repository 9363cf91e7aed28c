"""``lightball report``: the page of a study made again, and what it prints."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fabricated import Effect, World, study
from lightball import InputError, write_report
from lightball.cli.main import main
from lightball.report.text import result_text
from lightball.studies import as_json
from lightball.studies.result import Result
from lightball.studies.settings import Settings
from lightball.studies.store.disk import sealed

SETTINGS = Settings(batch_sizes=(8, 32), lr=(0.2, 0.4, 0.8), stages=(8, 16), max_extensions=0)
WORLD = World({(32, 0.9): Effect(9, 0.5)})


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Result]:
    folder = tmp_path / "study"
    result, _ = study(SETTINGS, WORLD, folder, task="digits")
    return folder, result


def half_of(folder: Path) -> Path:
    """The study without the confirmation at batch size 32."""
    for path in (folder / "chunks").iterdir():
        row = pq.read_table(path).to_pylist()[0]
        if (row["batch_size"], row["phase"]) == (32, "confirm"):
            path.unlink()
    (folder / "result.json").unlink()
    return folder


def report(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


class TestPrinted:
    def test_it_prints_what_compare_printed(
        self, finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, result = finished
        assert report(folder) == 0
        printed = capsys.readouterr().out
        *tables_and_verdict, _ = result_text(result).splitlines()
        assert printed.splitlines()[: len(tables_and_verdict)] == tables_and_verdict
        assert printed.splitlines()[-1] == f"report in {folder / 'report.html'}"
        assert "\x1b" not in printed
        assert max(map(len, printed.splitlines()[:-1])) <= 80
        assert (folder / "report.html").stat().st_size > 100_000

    def test_half_done(self, finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
        folder = half_of(finished[0])
        assert report(folder) == 0
        printed = capsys.readouterr().out
        assert "Training loss: momentum has no value at 8." in printed
        assert "Unfinished:\n  batch 32: rates are selected; 0 runs on fresh seeds finished" in printed
        assert "not finished" in (folder / "report.html").read_text(encoding="utf-8")

    def test_json(self, finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
        folder, result = finished
        assert report(folder, "--json") == 0
        value = json.loads(capsys.readouterr().out)
        assert value["batch_sizes"] == json.loads(json.dumps(as_json(result)))["batch_sizes"]
        assert value["answer"] == "On digits, momentum had no value up to batch size 8 and helped from 32 on."
        assert value["finished"] is True
        assert value["report"] == str(folder / "report.html")
        assert value["unfinished"] == value["figures"] == value["damaged"] == []

        assert report(half_of(folder), "--json") == 0
        value = json.loads(capsys.readouterr().out)
        assert not value["finished"]
        assert [entry["batch_size"] for entry in value["unfinished"]] == [32]
        assert value["answer"] == "So far, on digits, momentum had no value at batch size 8."

    def test_quiet(self, finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
        folder, _ = finished
        assert report(folder, "--quiet") == 0
        assert capsys.readouterr().out == f"{folder / 'report.html'}\n"

    def test_a_terminal_shows_verdicts_in_colour_and_a_file_does_not(self, finished: tuple[Path, Result]) -> None:
        command = [sys.executable, "-m", "lightball", "report", str(finished[0])]
        plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "\x1b" not in plain
        coloured = _on_a_terminal(command, {})
        assert "\x1b[32m\x1b[1mhelps\x1b[0m" in coloured
        assert "\x1b[36m\x1b[1mno value\x1b[0m" in coloured
        assert _on_a_terminal(command, {"NO_COLOR": "1"}).replace("\r\n", "\n") == plain


class TestFiles:
    def test_figures(self, finished: tuple[Path, Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        page = tmp_path / "elsewhere" / "page.html"
        assert report(finished[0], "--figures", "--out", page, "--json") == 0
        value = json.loads(capsys.readouterr().out)
        written = sorted((page.parent / "figures").iterdir())
        assert sorted(map(Path, value["figures"])) == written
        names = {path.stem for path in written}
        assert {"loss-by-rate-8", "accuracy-by-rate-32", "differences-train-loss", "curves-8"} <= names
        assert {"value-test-accuracy", "epochs-to-same-loss"} <= names
        assert len(written) == 2 * len(names)
        for path in written:
            if path.suffix == ".png":
                assert path.read_bytes().startswith(b"\x89PNG\r\n")
            else:
                assert ET.fromstring(path.read_text(encoding="utf-8")).tag.endswith("svg")
        assert not (finished[0] / "report.html").exists()

    def test_from_python(self, finished: tuple[Path, Result], tmp_path: Path) -> None:
        folder, _ = finished
        assert write_report(folder) == folder / "report.html"
        assert write_report(str(folder), out=tmp_path / "mine.html").read_bytes().startswith(b"<!doctype html>")

    def test_compare_writes_it_unless_told_not_to(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tiny = "compare digits --batch-sizes 256 --lr 0.4 --epochs 1 --stages 6 --tuning-seeds 1 --max-extensions 0"
        command = [*tiny.split(), "--compile", "off", "--workers", "1", "--json", "--out", str(tmp_path)]
        assert main([*command, "--no-report"]) == 0
        assert json.loads(capsys.readouterr().out)["report"] is None
        assert not (tmp_path / "report.html").exists()
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["report"] == str(tmp_path / "report.html")
        assert (tmp_path / "report.html").exists()

    def test_runs_are_only_read(self, finished: tuple[Path, Result]) -> None:
        folder, _ = finished
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert report(folder, "--quiet") == 0
        assert {path: path.read_bytes() for path in before} == before
        after = {path for path in folder.rglob("*") if path.is_file()}
        assert after - set(before) == {folder / "report.html"}


class TestRefused:
    def refused(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
        assert report(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        assert captured.err.startswith("lightball: ")
        return captured.err

    def test_no_study(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "there is no folder" in self.refused(capsys, tmp_path / "none")
        assert "holds no study" in self.refused(capsys, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_nothing_finished(self, finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
        folder, _ = finished
        shutil.rmtree(folder / "chunks")
        assert "holds no finished run yet: run the command of the study" in self.refused(capsys, folder)
        assert not (folder / "report.html").exists()

    def test_everything_damaged(self, finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
        folder, _ = finished
        chunks = sorted((folder / "chunks").iterdir())
        for path in chunks:
            path.write_bytes(b"PAR1 nonsense")
        assert f"{len(chunks)} damaged files are not believed" in self.refused(capsys, folder)
        for name in ("study.json", "study.copy.json"):
            (folder / name).write_text("{}")
        assert "is damaged" in self.refused(capsys, folder)

    def test_a_page_that_cannot_be_written(
        self, finished: tuple[Path, Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("x")
        assert "cannot make the folder" in self.refused(capsys, finished[0], "--out", tmp_path / "file" / "page.html")
        assert "cannot write" in self.refused(capsys, finished[0], "--out", tmp_path)

    def test_newer(self, finished: tuple[Path, Result]) -> None:
        folder, _ = finished
        study(replace(SETTINGS, stages=(8,)), WORLD, folder)
        asked = folder / "comparison.json"
        value = {name: entry for name, entry in json.loads(asked.read_text()).items() if name != "digest"}
        asked.write_bytes(sealed({**value, "format": value["format"] + 1}))
        with pytest.raises(InputError, match="was written by a newer lightball"):
            write_report(folder)
        asked.write_bytes(sealed({**value, "settings": {"unheard_of": 1}}))
        with pytest.raises(InputError, match="is damaged"):
            write_report(folder)


def _on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints to a terminal."""
    leader, follower = pty.openpty()
    without = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(command, stdout=follower, stderr=follower, env={**without, **environment}) as process:
        os.close(follower)
        printed = b""
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:  # its end, on Linux
                break
            if not data:
                break
            printed += data
        os.close(leader)
        assert process.wait(60) == 0
    return printed.decode()
