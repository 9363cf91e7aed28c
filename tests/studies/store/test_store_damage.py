"""Nothing that was not written is believed: every damage is named, set aside and computed again, without a traceback.

The controls remove the comparison of bytes with the digest in the name; then a flipped bit is believed.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import STUDY, bits, chunk, files, fill, in_process, key, outcomes, store

from lightball.errors import InputError
from lightball.studies.store import load, survey
from lightball.studies.store.chunk_file import METADATA, check, encode, file_name, from_bytes, to_bytes
from lightball.studies.store.disk import DamagedError, digest_of

GOOD, BAD = chunk(1), chunk(2)
LOSS = struct.pack("<d", 0.123456789)  # as it stands in the file


@pytest.fixture(scope="module", autouse=True)
def _quick_disk() -> Iterator[None]:
    """Hundreds of studies are written here, and none has to outlive a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


def parquet(facts: dict[str, object] | None = None, table: pa.Table | None = None) -> bytes:
    """A valid Parquet file, other than a chunk's in some of its facts or in its table."""
    data = encode(key(BAD), BAD, outcomes(BAD), "other", {})
    own = from_bytes(data)
    metadata = json.loads(own.schema.metadata[METADATA]) | {"study": _hash()} | (facts or {})
    return to_bytes((own if table is None else table).replace_schema_metadata({METADATA: json.dumps(metadata)}))


def _hash() -> str:
    from lightball.studies.runs import hash_of

    return hash_of(STUDY)


def cut(path: Path, draw: Callable[..., int]) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw(st.integers(0, len(data) - 1))])


def flip(path: Path, draw: Callable[..., int]) -> None:
    data = bytearray(path.read_bytes())
    bit = draw(st.integers(0, 8 * len(data) - 1))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def noise(path: Path, draw: Callable[..., bytes]) -> None:
    path.write_bytes(draw(st.binary()))


def under_its_digest(path: Path, data: bytes) -> None:
    path.unlink()
    path.with_name(file_name(key(BAD), data)).write_bytes(data)


def noise_under_its_digest(path: Path, draw: Callable[..., bytes]) -> None:
    under_its_digest(path, draw(st.binary()))


def framed_noise_under_its_digest(path: Path, draw: Callable[..., bytes]) -> None:
    under_its_digest(
        path, b"PAR1" + draw(st.binary(min_size=8)) + struct.pack("<I", draw(st.integers(0, 64))) + b"PAR1"
    )


def another_schema(path: Path, draw: Callable[..., pa.Table]) -> None:
    own = from_bytes(parquet())
    some = [
        pa.table({"x": [1]}),
        own.drop_columns("curve"),
        own.select(list(reversed(own.column_names))),
        own.slice(0, 0),
        own.slice(0, 1),
        own.set_column(0, "batch_size", own["batch_size"].cast(pa.int32())),
        own.append_column("more", pa.array([1] * own.num_rows)),
    ]
    under_its_digest(path, parquet(table=draw(st.sampled_from(some))))


def other_facts(path: Path, draw: Callable[..., dict[str, object]]) -> None:
    some: list[dict[str, object]] = [
        {"study": "0" * 16},
        {"format": 1},
        {"format": None},
        {"key": key(GOOD)},
        {"runs": 7},
        {"runs": "two"},
    ]
    under_its_digest(path, parquet(draw(st.sampled_from(some))))


def no_facts(path: Path, draw: Callable[..., bytes]) -> None:
    metadata = draw(st.sampled_from([None, {b"other": b"1"}, {METADATA: b"{"}, {METADATA: b"[]"}, {METADATA: b"\xff"}]))
    under_its_digest(path, to_bytes(from_bytes(parquet()).replace_schema_metadata(metadata)))


def renamed(path: Path, draw: object) -> None:
    (other,) = (p for p in files(path.parent.parent) if p != path)
    path.unlink()
    path.with_name(f"{key(BAD)}.{digest_of(other.read_bytes())}.parquet").write_bytes(other.read_bytes())


def a_folder(path: Path, draw: object) -> None:
    path.unlink()
    path.mkdir()


ways = [
    cut,
    flip,
    noise,
    noise_under_its_digest,
    framed_noise_under_its_digest,
    another_schema,
    other_facts,
    no_facts,
    renamed,
    a_folder,
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ways), st.data())
def test_damage_of_any_kind(way: Callable[..., None], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fill(folder, [GOOD, BAD])
        (path,) = (p for p in files(folder) if p.name.startswith(key(BAD)))
        way(path, data.draw)
        (name,) = (p.name for p in files(folder) if p.name.startswith(key(BAD)))
        before = sorted(folder.rglob("*"))
        with pytest.warns(UserWarning, match=f"left out '.*{name}': ") as warned:
            assert set(load(folder)["chunk"].to_pylist()) == {key(GOOD)}
        assert len(warned) == 1
        assert [d.name for d in survey(folder).damaged] == [f"chunks/{name}"]
        assert sorted(folder.rglob("*")) == before  # reading moves nothing
        with store(folder, said := []) as there:
            assert set(there.load([key(GOOD), key(BAD)])) == {key(GOOD)}
            assert len(said) == 1
            assert said[0].startswith(f"{folder / 'chunks' / name} is damaged (")
            assert "\n" not in said[0]
            assert (folder / "damaged" / name).exists()
            assert there.claim(key(BAD))
            there.save(key(BAD), BAD, outcomes(BAD))
            assert set(there.load([key(GOOD), key(BAD)])) == {key(GOOD), key(BAD)}
        assert len(said) == 1
        assert load(folder).num_rows == 4
        (damage,) = survey(folder).damaged
        assert damage.name == f"damaged/{name}"
        assert damage.reason


def test_every_bit_and_every_length() -> None:
    data = encode("k", BAD, outcomes(BAD), "study", {})
    name = file_name("k", data)
    assert check(name, data) == "k"
    flipped = bytearray(data)
    for i in range(8 * len(data)):
        flipped[i // 8] ^= 1 << i % 8
        with pytest.raises(DamagedError):
            check(name, bytes(flipped))
        flipped[i // 8] ^= 1 << i % 8
    for length in range(len(data)):
        with pytest.raises(DamagedError):
            check(name, data[:length])


def flipped_loss(folder: Path) -> None:
    """Change the lowest bit of a loss in a file, which no parser can notice."""
    (path,) = (p for p in files(folder) if p.name.startswith(key(BAD)))
    data = bytearray(path.read_bytes())
    data[data.index(LOSS)] ^= 1
    path.write_bytes(data)


def test_a_bit_of_a_number(tmp_path: Path) -> None:
    fill(tmp_path, [BAD])
    flipped_loss(tmp_path)
    with store(tmp_path, said := []) as there:
        assert there.load([key(BAD)]) == {}
    assert "(its bytes do not match the digest in its name)" in said[0]


def test_control_without_the_digest_it_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, [BAD])
    flipped_loss(tmp_path)
    for place in ("reading", "chunk_file"):
        monkeypatch.setattr(f"lightball.studies.store.{place}.check", lambda name, data: name.partition(".")[0])
    with store(tmp_path, said := []) as there:
        believed = there.load([key(BAD)])[key(BAD)]
    assert said == []
    assert [bits(o) for o in believed] != [bits(o) for o in outcomes(BAD)]


@pytest.mark.parametrize("reader", [load, survey])
def test_newer_chunk(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    fill(tmp_path, [GOOD])
    data = parquet({"format": 3})
    (tmp_path / "chunks" / file_name(key(BAD), data)).write_bytes(data)
    message = r"was written by a newer lightball \(format 3, this one reads 2\): upgrade"
    with pytest.raises(InputError, match=message):
        reader(tmp_path)
    with store(tmp_path, said := []) as there, pytest.raises(InputError, match=message):
        there.load([key(BAD)])
    assert said == []
    assert len(files(tmp_path)) == 2


def test_a_chunk_of_another_study(tmp_path: Path) -> None:
    """By a correct name, say copied from the folder of another study."""
    fill(tmp_path / "a", [BAD], study={"task": "other"})
    fill(tmp_path / "b", [GOOD])
    (path,) = files(tmp_path / "a")
    path.rename(tmp_path / "b" / "chunks" / path.name)
    with store(tmp_path / "b", said := []) as there:
        assert set(there.load([key(GOOD), key(BAD)])) == {key(GOOD)}
    assert "(it belongs to another study)" in said[0]


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    """What has no name of a chunk is named to readers and never moved: nobody asked for it."""
    fill(tmp_path, [GOOD])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "chunks" / "mine.parquet")
    with pytest.warns(UserWarning, match=r"mine.parquet': its name is not KEY\.DIGEST\.parquet"):
        assert load(tmp_path).num_rows == 2
    with store(tmp_path, said := []) as there:
        assert len(there.load([key(GOOD)])) == 1
    assert said == []
    assert (tmp_path / "chunks" / "mine.parquet").exists()


def test_a_name_that_is_in_damaged_already(tmp_path: Path) -> None:
    for _ in range(3):
        fill(tmp_path, [BAD])
        files(tmp_path)[0].write_bytes(b"")
        with store(tmp_path) as there:
            assert there.load([key(BAD)]) == {}
    assert len(list((tmp_path / "damaged").iterdir())) == 3
    assert [d.reason for d in survey(tmp_path).damaged] == ["it is empty"] * 3


class TestCannotBeMoved:
    """A damaged file that stays where it is would block its chunk for ever."""

    def refuse(self, folder: Path, reason: str) -> None:
        fill(folder, [BAD])
        (path,) = files(folder)
        path.write_bytes(b"")
        with store(folder, said := []) as there, pytest.raises(InputError) as caught:
            there.load([key(BAD)])
        assert said == []
        assert str(caught.value) == (
            f"cannot set the damaged file '{path}' aside: {reason}; move it away and run the same command again"
        )
        path.unlink()
        with store(folder) as there:
            assert there.claim(key(BAD))

    def test_damaged_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "damaged").touch()
        self.refuse(tmp_path, "File exists")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_permission(self, tmp_path: Path) -> None:
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged").chmod(0o555)
        self.refuse(tmp_path, "Permission denied")

    def test_json_too(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            (tmp_path / "damaged").touch()
            (tmp_path / "margins.json").write_text("{")
            with pytest.raises(InputError, match=r"cannot set the damaged file '.*margins\.json' aside: File exists; "):
                there.fix_json("margins.json", {"8": 0.1})

    def test_gone_in_the_meantime(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another process has set it aside just before."""
        fill(tmp_path, [BAD])
        (path,) = files(tmp_path)
        path.write_bytes(b"")
        with store(tmp_path) as there:
            mkdir = Path.mkdir
            monkeypatch.setattr(Path, "mkdir", lambda *a, **b: (path.unlink(missing_ok=True), mkdir(*a, **b)))
            assert there.load([key(BAD)]) == {}


class TestCannotBeRead:
    """A file that cannot be read for another reason than its bytes is not damaged, and nothing is moved."""

    def readers(self, folder: Path) -> list[Callable[[], object]]:
        there = store(folder)
        return [lambda: there.load([key(GOOD)]), lambda: load(folder), lambda: survey(folder)]

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ESTALE, errno.EIO])
    @pytest.mark.parametrize("suffix", [".parquet", "study.json"])
    def test_any_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, suffix: str) -> None:
        fill(tmp_path, [GOOD])
        before = sorted(tmp_path.rglob("*"))
        read_bytes = Path.read_bytes

        def failing(path: Path) -> bytes:
            if path.name.endswith(suffix):
                raise OSError(number, os.strerror(number), str(path))
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", failing)
        readers = self.readers(tmp_path)
        if suffix == "study.json":
            readers[0] = store(tmp_path).__enter__
        for reader in readers:
            with pytest.raises(InputError) as caught:
                reader()
            assert str(caught.value).startswith(f"cannot read '{tmp_path}/")
            assert str(caught.value).endswith(
                f"{suffix}': {os.strerror(number)}; make it readable or move it away, and run the same command again"
            )
        assert sorted(tmp_path.rglob("*")) == before

    def test_too_many_open_files(self, tmp_path: Path) -> None:
        """In earnest: the process may open no more files; what is finished must not look missing."""
        fill(tmp_path, [GOOD])

        def child() -> None:
            import resource

            there = store(tmp_path)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, 1024))
            with pytest.raises(InputError, match=r"cannot read '.*/chunks': Too many open files; "):
                there.load([key(GOOD)])
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
            assert len(there.load([key(GOOD)])) == 1

        process = in_process(child)
        process.join()
        assert process.exitcode == 0

    def test_what_is_set_aside_may_be_unreadable(self, tmp_path: Path) -> None:
        fill(tmp_path, [GOOD])
        (tmp_path / "damaged" / "x.json").mkdir(parents=True)
        (damage,) = survey(tmp_path).damaged
        assert (damage.name, damage.reason) == ("damaged/x.json", "it cannot be read: Is a directory")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["study.json", "plan", "margins.json"]), st.sampled_from([cut, flip, noise]), st.data())
def test_damaged_json(name: str, way: Callable[..., None], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with store(folder) as there:
            there.freeze({8: {"width": 4}})
            there.plan("tuning", {key(GOOD): GOOD, key(BAD): BAD})
            there.save(key(GOOD), GOOD, outcomes(GOOD))
            there.save_json("margins.json", {"8": 0.1})
        path = next((folder / "plan").iterdir()) if name == "plan" else folder / name
        way(path, data.draw)
        (damage,) = survey(folder).damaged
        assert damage.name == str(path.relative_to(folder))
        with store(folder, said := []) as there:
            assert there.freeze({8: {"width": 9}}) == {8: {"width": 4}}
            there.plan("tuning", {key(GOOD): GOOD, key(BAD): BAD})
            assert there.read_json("margins.json") == (None if name == "margins.json" else {"8": 0.1})
            assert set(there.load([key(GOOD), key(BAD)])) == {key(GOOD)}
        assert len(said) == (name != "plan")  # the plan of a command is written by each run of it
        counts = survey(folder).counts[0]
        assert (counts.planned, counts.finished, counts.missing) == (4, 2, 2)
