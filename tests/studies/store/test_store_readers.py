"""`lightball.load` and `survey`: every state of a folder, as a table and as counts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import ABOUT, STUDY, chunk, files, fill, key, outcome, outcomes, store

import lightball
from lightball.errors import InputError
from lightball.studies.runs import MEASURES, crashed
from lightball.studies.store import Counts, load, survey


def half_done(folder: Path) -> None:
    """Two phases: tuning with a finished, a crashed and a missing chunk; confirmation finished, one run diverged."""
    tuning = [chunk(i) for i in range(3)]
    confirming = chunk(9, batch_size=32, phase="confirm")
    with store(folder) as there:
        there.plan("tuning", {key(c): c for c in tuning})
        there.plan("confirming, 16 pairs", {key(confirming): confirming})
        there.save(key(tuning[0]), tuning[0], outcomes(tuning[0]))
        there.save(key(tuning[1]), tuning[1], [crashed(run, "no memory\nat all") for run in tuning[1].runs])
        diverged = outcome(confirming.runs[1], loss=math.inf)
        there.save(key(confirming), confirming, [outcome(confirming.runs[0]), diverged])


def test_exported() -> None:
    assert lightball.load is load
    assert "load" in lightball.__all__


class TestTable:
    def test_columns_rows_and_order(self, tmp_path: Path) -> None:
        half_done(tmp_path)
        table = load(str(tmp_path))
        assert table.column_names == [
            *("batch_size", "effective_lr", "momentum", "phase", "seed", "failed", "failed_at", "error"),
            *(f"{when}_{measure}" for when in ("untrained", "final") for measure in MEASURES),
            *("curve", "chunk"),
        ]
        rows = table.to_pylist()
        place = ("batch_size", "effective_lr", "momentum", "phase", "seed")
        assert rows == sorted(rows, key=lambda row: [row[name] for name in place])
        assert [row["phase"] for row in rows] == ["tune"] * 4 + ["confirm"] * 2
        assert [row["error"] for row in rows] == [None, None, *["no memory\nat all"] * 2, None, None]
        assert [row["failed"] for row in rows] == [False, False, True, True, False, True]
        assert rows[0]["chunk"] == key(chunk(0))
        assert rows[0]["curve"] == [2.0, 1.0, 2 / 3, 0.5]
        facts = json.loads(table.schema.metadata[b"lightball"])
        assert facts == {"study": STUDY, "versions": ABOUT["versions"], "format": 2}

    def test_nothing_finished(self, tmp_path: Path) -> None:
        fill(tmp_path, [])
        assert load(tmp_path).num_rows == 0
        assert survey(tmp_path).counts == ()


class TestSurvey:
    def test_half_done(self, tmp_path: Path) -> None:
        half_done(tmp_path)
        found = survey(tmp_path)
        assert found.counts == (
            Counts("tune", 8, planned=6, finished=4, failed=0, crashed=2, missing=2, in_flight=0),
            Counts("confirm", 32, planned=2, finished=2, failed=1, crashed=0, missing=0, in_flight=0),
        )
        assert found.errors == (("no memory", 2),)
        assert found.damaged == ()
        assert found.in_flight == ()
        assert found.study == STUDY

    def test_in_flight(self, tmp_path: Path) -> None:
        half_done(tmp_path)
        with store(tmp_path) as there:
            assert there.claim(key(chunk(2)))
            assert not there.claim(key(chunk(1)))
            found = survey(tmp_path)
        assert found.counts[0].missing == found.counts[0].in_flight == 2
        assert [(claim.key, claim.runs) for claim in found.in_flight] == [(key(chunk(2)), 2)]

    def test_damage_of_every_kind_of_file(self, tmp_path: Path) -> None:
        half_done(tmp_path)
        with store(tmp_path) as there:
            there.save_json("result.json", {"a": 1})
        for path in (*files(tmp_path), *(tmp_path / "plan").iterdir(), *tmp_path.glob("*.json")):
            if path.name != "study.copy.json":
                path.write_bytes(path.read_bytes()[:-1])
        before = sorted(tmp_path.rglob("*"))
        found = survey(tmp_path)
        assert len(found.damaged) == 3 + 2 + 2
        assert found.counts == ()
        assert sorted(tmp_path.rglob("*")) == before

    def test_finished_though_its_plan_is_gone(self, tmp_path: Path) -> None:
        half_done(tmp_path)
        for path in (tmp_path / "plan").iterdir():
            path.unlink()
        assert [(c.planned, c.finished, c.missing) for c in survey(tmp_path).counts] == [(4, 4, 0), (2, 2, 0)]


@pytest.mark.parametrize("reader", [load, survey])
class TestNoStudy:
    def refuse(self, reader: Callable[[Path], object], folder: Path) -> str:
        with pytest.raises(InputError) as caught:
            reader(folder)
        return str(caught.value)

    def test_missing(self, tmp_path: Path, reader: Callable[[Path], object]) -> None:
        folder = tmp_path / "gone"
        assert self.refuse(reader, folder) == f"there is no folder '{folder}': give the folder of a study"
        assert not folder.exists()

    def test_a_file(self, tmp_path: Path, reader: Callable[[Path], object]) -> None:
        (tmp_path / "x").touch()
        assert self.refuse(reader, tmp_path / "x") == f"'{tmp_path}/x' is a file, but must be the folder of a study"

    def test_empty(self, tmp_path: Path, reader: Callable[[Path], object]) -> None:
        line = f"the folder '{tmp_path}' holds no study: it has no study.json; give the folder of a study"
        assert self.refuse(reader, tmp_path) == line
        assert list(tmp_path.iterdir()) == []

    def test_damaged_with_its_copy(self, tmp_path: Path, reader: Callable[[Path], object]) -> None:
        fill(tmp_path, [])
        for path in tmp_path.glob("*.json"):
            path.write_text("{}")
        line = self.refuse(reader, tmp_path)
        assert line.startswith(f"the file '{tmp_path}/study.json' is damaged (its content does not match its digest): ")
