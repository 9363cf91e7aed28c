"""What is saved is loaded, bit by bit; a folder holds one study; plans, compositions and JSON come back."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import ABOUT, STUDY, bits, chunk, files, fill, key, outcome, outcomes, store

from lightball.errors import InputError
from lightball.studies.runs import MEASURES, Chunk, Outcome, Run, crashed
from lightball.studies.store import Store
from lightball.studies.store.chunk_file import decode, encode, file_name, outcomes_in
from lightball.studies.store.disk import sealed, unsealed
from lightball.studies.store.reading import MANY

numbers = st.floats(allow_nan=True, allow_infinity=True)
measures = st.fixed_dictionaries(dict.fromkeys(MEASURES, numbers))
runs = st.builds(
    Run,
    st.integers(1, 2**31),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 2**63 - 1),
    st.floats(0, 1),
)
results = st.builds(
    Outcome,
    runs,
    st.lists(numbers, max_size=5).map(tuple),
    measures,
    measures,
    st.none() | st.integers(0, 2**62),
    st.none() | st.text(),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(results, min_size=1, max_size=5), st.sampled_from(["tune", "confirm"]))
def test_outcomes_survive_in_every_bit(some: list[Outcome], phase: Any) -> None:
    whole = Chunk(tuple(o.run for o in some), 3, True, phase)
    data = encode("k", whole, some, "study", ABOUT)
    back = outcomes_in(decode(file_name("k", data), data, "study"))
    assert [bits(o) for o in back] == [bits(o) for o in some]


def test_an_error_that_is_no_text() -> None:
    """The output of a script may hold bytes that are not UTF-8; they come back escaped."""
    odd = crashed(Run(8, 0.1, 1, 0.0), "caf\udce9 died")
    data = encode("k", Chunk((odd.run,)), [odd], "study", {})
    assert outcomes_in(decode(file_name("k", data), data, "study"))[0].error == "caf\\udce9 died"


def test_outcomes_of_other_runs_are_refused(tmp_path: Path) -> None:
    with store(tmp_path) as there, pytest.raises(ValueError, match="not those of the chunk's runs"):
        there.save("k", chunk(1), outcomes(chunk(2)))


def test_a_study_that_goes_on(tmp_path: Path) -> None:
    done, open_ = [chunk(i) for i in range(5)], chunk(9)
    fill(tmp_path / "a" / "b", done)
    with store(tmp_path / "a" / "b") as there:
        found = there.load([key(open_), *map(key, reversed(done))])
        assert list(found) == [key(c) for c in reversed(done)]
        assert all(tuple(o.run for o in found[key(c)]) == c.runs for c in done)
        assert there.discard(key(done[0]))
        assert key(done[0]) not in there.load(map(key, done))
        assert there.claim(key(done[0]))
        assert not there.claim(key(done[1]))


class TestIndex:
    """Rows that were parsed once are kept; what is loaded is the same with and without them."""

    chunks = tuple(chunk(i, runs=1) for i in range(MANY + 5))

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("os.fsync", lambda descriptor: None)
        fill(tmp_path, self.chunks)
        return tmp_path

    def load(self, folder: Path) -> dict[str, list[Outcome]]:
        return store(folder).load(map(key, self.chunks))

    def test_equal_with_and_without(self, folder: Path) -> None:
        (index,) = folder.glob("index.*.parquet")  # written at the end of the study
        with_index = self.load(folder)
        index.unlink()
        assert self.load(folder) == with_index
        assert {k: o[0].run for k, o in with_index.items()} == {key(c): c.runs[0] for c in self.chunks}
        assert list(folder.glob("index.*.parquet")) == [index]  # and anew by whoever parsed many

    def test_it_is_used(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lightball.studies.store.reading.decode", None)
        assert len(self.load(folder)) == len(self.chunks)

    def test_damage_is_found_in_spite_of_it(self, folder: Path) -> None:
        data = bytearray(files(folder)[7].read_bytes())
        data[100] ^= 1
        files(folder)[7].write_bytes(data)
        with store(folder, said := []) as there:
            assert len(there.load(map(key, self.chunks))) == len(self.chunks) - 1
        assert len(said) == 1

    @pytest.mark.parametrize("damage", [b"", b"PAR1", None])
    def test_a_damaged_one_is_made_anew(self, folder: Path, damage: bytes | None) -> None:
        (index,) = folder.glob("index.*.parquet")
        before = self.load(folder)
        index.write_bytes(index.read_bytes()[:-1] + b"?" if damage is None else damage)
        assert self.load(folder) == before
        assert list(folder.glob("index.*.parquet")) == [index]
        assert len(index.read_bytes()) > 1000

    def test_written_on_the_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that it is there after a kill."""
        monkeypatch.setattr("lightball.studies.store.store._INDEXED", 5)
        monkeypatch.setattr("lightball.studies.store.reading.MANY", 2)
        with store(tmp_path) as there:
            for one in self.chunks[:9]:
                there.save(key(one), one, outcomes(one))
            assert len(list(tmp_path.glob("index.*.parquet"))) == 1

    def test_discarded_and_later_chunks(self, folder: Path) -> None:
        with store(folder) as there:
            assert there.discard(key(self.chunks[0]))
            late = chunk(10_000)
            there.save(key(late), late, outcomes(late))
            found = there.load([key(late), *map(key, self.chunks)])
        assert key(self.chunks[0]) not in found
        assert len(found) == len(self.chunks)


class TestStudy:
    def test_another_study_is_refused_by_its_differences(self, tmp_path: Path) -> None:
        fill(tmp_path, [])
        other = {**STUDY, "settings": {"epochs": 24, "schedule": "step:0.25,0.5,0.75:0.1,0.01"}}
        with pytest.raises(InputError) as caught, store(tmp_path, study=other):
            pass
        assert str(caught.value) == (
            f"the folder '{tmp_path}' holds another study (epochs is 10 there, 24 here; schedule is constant there, "
            "step:0.25,0.5,0.75:0.1,… here): choose another folder with --out"
        )

    def test_at_most_three_differences(self, tmp_path: Path) -> None:
        fill(tmp_path, [])
        other = {"a": {"x": 1}, "b": {"x": 2}, "settings": {"epochs": 10}}
        with pytest.raises(InputError, match=r"\(x is not set there, 1 here; x is .*; .*; 2 more\): "):
            store(tmp_path, study=other).__enter__()
        assert not (tmp_path / "damaged").exists()

    def test_equal_in_json(self, tmp_path: Path) -> None:
        fill(tmp_path, [], study={"a": (1, 2), "b": {3: 4.0}})
        fill(tmp_path, [], study={"b": {"3": 4.0}, "a": [1, 2]})

    def test_newer(self, tmp_path: Path) -> None:
        fill(tmp_path, [])
        value = unsealed((tmp_path / "study.json").read_bytes())
        (tmp_path / "study.json").write_bytes(sealed({**value, "format": 3}))
        with pytest.raises(InputError) as caught:
            store(tmp_path).__enter__()
        assert str(caught.value) == (
            f"the folder '{tmp_path}' was written by a newer lightball (format 3, this one reads 2): "
            "upgrade lightball, or choose another folder with --out"
        )

    def test_damaged_keeps_the_compositions(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            there.freeze({8: {"width": 3}})
        (tmp_path / "study.json").write_text("{")
        with store(tmp_path, said := []) as there:
            assert there.compositions == {8: {"width": 3}}
        assert len(said) == 1
        assert "study.json is damaged (its content does not match its digest): set aside in" in said[0]
        assert (tmp_path / "damaged" / "study.json").read_text() == "{"
        assert unsealed((tmp_path / "study.json").read_bytes())["study"] == STUDY

    def test_damaged_with_its_copy(self, tmp_path: Path) -> None:
        fill(tmp_path, [chunk()])
        for path in tmp_path.glob("study*.json"):
            path.write_bytes(b"")
        with store(tmp_path, said := []) as there:
            assert there.compositions == {}
            assert list(there.load([key(chunk())])) == [key(chunk())]
        assert "(it is empty)" in said[0]


class TestCompositions:
    def test_what_is_there_stays(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            assert there.compositions == {}
            assert there.freeze({8: {"width": 3}}) == {8: {"width": 3}}
            assert there.freeze({8: {"width": 4}, 32: {"width": 5}}) == {8: {"width": 3}, 32: {"width": 5}}
        with store(tmp_path) as there:
            assert there.compositions == {8: {"width": 3}, 32: {"width": 5}}

    def test_several_processes_at_once(self, tmp_path: Path) -> None:
        """Each adds a size of its own to an empty folder, and one that all of them have, with other values."""

        def add(size: int) -> None:
            with store(tmp_path / "study") as there:
                held = there.freeze({size: {"width": size}, 1: {"by": size}})
                (tmp_path / f"{size}.json").write_text(json.dumps(held[1]))

        processes = [made_up.in_process(add, size) for size in range(2, 10)]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        with store(tmp_path / "study") as there:
            assert set(there.compositions) == set(range(1, 10))
            held = {path.read_text() for path in tmp_path.glob("*.json")}
            assert held == {json.dumps(there.compositions[1])}


class TestPlan:
    def test_same_plan_same_file(self, tmp_path: Path) -> None:
        chunks = {key(c): c for c in (chunk(1), chunk(2))}
        with store(tmp_path) as there:
            there.plan("tuning, wider grid", chunks)
            (path,) = (tmp_path / "plan").iterdir()
            before = path.stat().st_mtime_ns
            there.plan("tuning, wider grid", chunks)
            assert path.stat().st_mtime_ns == before
            path.write_bytes(path.read_bytes()[:-9])
            there.plan("tuning, wider grid", chunks)
            there.plan("confirming", {key(c): c for c in (chunk(3, phase="confirm"),)})
        assert path.name.startswith("tuning-wider-grid-")
        assert set(unsealed(path.read_bytes())["chunks"]) == set(chunks)
        assert len(list((tmp_path / "plan").iterdir())) == 2


class TestJson:
    @pytest.mark.parametrize("value", [{}, {"a": 1, "b": [None, "é\ud800"]}, {"value": 3}])
    def test_round_trip(self, tmp_path: Path, value: Any) -> None:
        with store(tmp_path) as there:
            assert there.read_json("x.json") is None
            there.save_json("x.json", value)
            assert there.read_json("x.json") == value

    def test_a_mapping_stays_readable(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            there.save_json("x.json", {"a": 1})
        value = json.loads((tmp_path / "x.json").read_text())
        assert value.pop("digest")
        assert value == {"a": 1}

    def test_the_digest_is_no_entry(self, tmp_path: Path) -> None:
        with store(tmp_path) as there, pytest.raises(ValueError, match="'digest' is taken"):
            there.save_json("x.json", {"digest": "x"})

    def test_fixed_entries_stay(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            assert there.fix_json("margins.json", {"8": 0.1, "x": (1, 2)}) == {"8": 0.1, "x": [1, 2]}
            both = {"8": 0.1, "x": [1, 2], "32": 0.3}
            assert there.fix_json("margins.json", {"8": 0.2, "32": 0.3}) == both
            assert there.fix_json("margins.json", {"32": 0.4}) == both
            assert there.read_json("margins.json") == both
            (tmp_path / "margins.json").write_text("{")
            assert there.fix_json("margins.json", {"64": 0.5}) == {"64": 0.5}

    def test_fixed_by_several_processes_at_once(self, tmp_path: Path) -> None:
        """Each adds entries of its own, and one that all of them have, with other values; none is lost."""
        barrier = made_up.fork.Barrier(8)

        def add(number: int) -> None:
            with store(tmp_path / "study") as there:
                barrier.wait()
                for i in range(5):
                    held = there.fix_json("margins.json", {f"{number}-{i}": i, "all": number})
                (tmp_path / f"{number}.json").write_text(json.dumps(held["all"]))

        processes = [made_up.in_process(add, number) for number in range(8)]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        with store(tmp_path / "study") as there:
            there_now = there.read_json("margins.json")
        assert set(there_now) == {"all", *(f"{number}-{i}" for number in range(8) for i in range(5))}
        assert {path.read_text() for path in tmp_path.glob("*.json")} == {json.dumps(there_now["all"])}

    def test_every_bit(self) -> None:
        data = sealed({"a": [1.5, "é", None], "b": {"c": True}})
        for i in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[i // 8] ^= 1 << i % 8
            with pytest.raises(Exception, match="does not match its digest"):
                unsealed(bytes(flipped))
        for length in range(len(data)):
            with pytest.raises(Exception, match=r"does not match its digest|it is empty"):
                unsealed(data[:length])

    def test_damage_is_said_once(self, tmp_path: Path) -> None:
        with store(tmp_path, said := []) as there:
            there.save_json("margins.json", {"8": 0.1})
            path = tmp_path / "margins.json"
            path.write_text(path.read_text().replace("0.1", "0.2"))
            assert there.read_json("margins.json") is None
            assert there.read_json("margins.json") is None
        assert len(said) == 1
        assert "margins.json is damaged (its content does not match its digest)" in said[0]


def test_leftovers_of_killed_processes(tmp_path: Path) -> None:
    """Old temporaries are removed, fresh ones are another process's, and neither is ever taken for a chunk."""
    fill(tmp_path, [chunk()])
    old, fresh = (tmp_path / "chunks" / f".{name}.tmp" for name in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    with store(tmp_path, said := []) as there:
        assert len(there.load([key(chunk())])) == 1
    assert not old.exists()
    assert fresh.exists()
    assert said == []


def test_about_stands_in_every_file(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    fill(tmp_path, [chunk()])
    facts = json.loads(pq.read_schema(files(tmp_path)[0]).metadata[b"lightball"])
    assert facts["about"] == ABOUT
    assert facts["key"] == key(chunk())
    study = unsealed((tmp_path / "study.json").read_bytes())
    assert (study["command"], study["versions"]) == (ABOUT["command"], ABOUT["versions"])


def test_failed_and_crashed_runs_come_back(tmp_path: Path) -> None:
    one = chunk(runs=3)
    diverged = replace(outcome(one.runs[1], loss=float("inf")), failed_at=7)
    some = [outcome(one.runs[0]), diverged, crashed(one.runs[2], "CUDA out of memory\nmore")]
    there: Store
    with store(tmp_path) as there:
        there.save(key(one), one, some)
        back = there.load([key(one)])[key(one)]
    assert list(map(bits, back)) == list(map(bits, some))
