"""`lightball runs`: text of at most 80 columns, the same facts in JSON, refusals; a folder in every state."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lightball.cli.main import main
from lightball.studies.runs import MEASURES, Chunk, Outcome, Phase, Run, crashed
from lightball.studies.store import Store


def chunk(seed: int, batch_size: int = 8, phase: Phase = "tune") -> Chunk:
    return Chunk((Run(batch_size, 0.1, seed, 0.0), Run(batch_size, 0.1, seed, 0.9)), phase=phase)


def outcome(run: Run, loss: float = 0.1) -> Outcome:
    start = dict.fromkeys(MEASURES, 2.0)
    return Outcome(run, (2.0, loss), start, start | {"train_loss": loss})


def open_store(folder: Path) -> Store:
    return Store(folder, {"task": "digits"}, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tuning: one chunk finished, one crashed, one damaged, one missing; confirmation: one finished, a run diverged."""
    tuning, confirming = [chunk(i) for i in range(4)], chunk(9, 512, "confirm")
    with open_store(tmp_path) as store:
        store.plan("tuning", {c.key(""): c for c in tuning})
        store.save(tuning[1].key(""), tuning[1], [crashed(run, "no " + "memory " * 40) for run in tuning[1].runs])
        store.save(tuning[2].key(""), tuning[2], list(map(outcome, tuning[2].runs)))
        for path in (tmp_path / "chunks").glob(f"{tuning[2].key('')}*"):
            path.write_bytes(path.read_bytes()[:100])
        store.save(tuning[0].key(""), tuning[0], list(map(outcome, tuning[0].runs)))
        store.save(confirming.key(""), confirming, [outcome(confirming.runs[0]), outcome(confirming.runs[1], math.nan)])
    return tmp_path


def runs(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["runs", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs(capsys, str(folder))
    assert all(len(line) <= 80 for line in out.splitlines()[1:])
    table = [line.split() for line in out.splitlines()[2:6]]
    assert table == [
        ["phase", "batch", "planned", "finished", "diverged", "crashed", "missing", "in", "flight"],
        ["tune", "8", "8", "4", "0", "2", "4", "0"],
        ["confirm", "512", "2", "2", "1", "0", "0", "0"],
        ["all", "10", "6", "1", "2", "4", "0"],
    ]
    assert "damaged, not believed:\n  chunks/" in out
    assert "its bytes do not match the digest in its name" in " ".join(out.split())
    assert "errors of crashed runs:\n  2 × no memory memory" in out
    assert "in flight, among" not in out


def test_in_flight(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    with open_store(folder) as store:
        assert store.claim(chunk(3).key(""))
        out = runs(capsys, str(folder))
    assert out.splitlines()[3].split()[-1] == "2"
    assert f"in flight, among the missing:\n  process {os.getpid()} on " in out
    assert ": 1 chunk, since 20" in " ".join(out.split())


def test_json_has_the_same_facts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(runs(capsys, str(folder), "--json"))
    assert set(facts) == {"folder", "study", "counts", "in_flight", "damaged", "errors"}
    assert facts["study"] == {"task": "digits"}
    assert facts["counts"][0] == {
        **{"phase": "tune", "batch_size": 8, "planned": 8, "finished": 4},
        **{"failed": 0, "crashed": 2, "missing": 4, "in_flight": 0},
    }
    assert len(facts["damaged"]) == 1
    assert facts["errors"][0][1] == 2


def test_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = chunk(1)
    with open_store(tmp_path) as store:
        store.save(one.key(""), one, list(map(outcome, one.runs)))
    lines = runs(capsys, str(tmp_path)).splitlines()
    assert len(lines) == 4
    assert lines[3].split() == ["tune", "8", "2", "2", "0", "0", "0", "0"]


def test_nothing_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(tmp_path):
        pass
    assert runs(capsys, str(tmp_path)).splitlines()[2] == "nothing is planned or finished"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gone", "there is no folder 'gone': give the folder of a study"),
        ("file", "'file' is a file, but must be the folder of a study"),
        ("empty", "the folder 'empty' holds no study: it has no study.json; give the folder of a study"),
    ],
)
def test_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("empty").mkdir()
    assert main(["runs", name]) == 2
    assert capsys.readouterr().err == f"lightball: {line}\n"


def test_listed_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Say how far a study is" in capsys.readouterr().out
