"""One outcome holds for each chunk, whoever computes it: two owners, discards at the same time, reading by one rule."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from made_up import backdate, chunk, files, fill, fork, in_process, key, outcomes, store

from lightball.errors import InputError
from lightball.studies.store import chunk_folder, disk, load, survey
from lightball.studies.store.chunk_file import encode, file_name
from lightball.studies.store.reading import names_of

ONE = chunk()
KEY = key(ONE)
OURS, THEIRS, THIRD = (outcomes(ONE, loss=loss) for loss in (0.25, 0.5, 0.75))


def put_file(folder: Path, some: list[Any], study: str, age: float = 0.0) -> Path:
    """A file as another process writes it that takes no heed of ours."""
    data = encode(KEY, ONE, some, study, {})
    path = folder / "chunks" / file_name(KEY, data)
    path.write_bytes(data)
    backdate([path], age)
    return path


class TestTwoOwners:
    def test_the_second_takes_the_outcomes_of_the_first(self, tmp_path: Path) -> None:
        with store(tmp_path) as a, store(tmp_path) as b:
            assert a.claim(KEY)
            assert a.save(KEY, ONE, THEIRS) == THEIRS
            assert b.save(KEY, ONE, OURS) == THEIRS
            assert len(files(tmp_path)) == 1
            assert a.load([KEY]) == b.load([KEY]) == {KEY: THEIRS}

    def test_a_file_that_is_there_holds_whatever_its_time(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            put_file(tmp_path, THEIRS, there._hash, age=-10)
            assert there.save(KEY, ONE, OURS) == THEIRS
            assert len(files(tmp_path)) == 1

    def test_a_damaged_file_does_not_hold(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            path = put_file(tmp_path, THEIRS, there._hash, age=10)
            path.write_bytes(path.read_bytes()[:-1])
            assert there.save(KEY, ONE, OURS) == OURS
            assert there.load([KEY]) == {KEY: OURS}

    @pytest.mark.parametrize(("age", "holds"), [(10.0, THEIRS), (-10.0, OURS)])
    def test_another_comes_while_we_write(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, holds: list[Any]
    ) -> None:
        """Which takes an owner that was believed dead; the file that was written first holds."""
        with store(tmp_path) as there:

            def late(path: Path, data: bytes) -> None:
                put_file(tmp_path, THEIRS, there._hash, age)
                path.write_bytes(data)

            monkeypatch.setattr(chunk_folder, "write", late)
            assert there.save(KEY, ONE, OURS) == holds
            assert len(files(tmp_path)) == (1 if holds is THEIRS else 2)  # theirs is theirs to remove
            assert there.load([KEY]) == {KEY: holds}

    @pytest.mark.parametrize("first", range(3))
    def test_all_readers_take_the_file_that_was_written_first(self, tmp_path: Path, first: int) -> None:
        with store(tmp_path) as there:
            there.plan("tuning", {KEY: ONE})
            some = [OURS, THEIRS, THIRD]
            paths = [put_file(tmp_path, each, there._hash, 10 + (i == first)) for i, each in enumerate(some)]
            assert there.load([KEY]) == {KEY: some[first]}
            assert names_of(tmp_path, KEY)[0] == paths[first].name
            losses = [o.final["train_loss"] for o in some[first]]
            assert load(tmp_path)["final_train_loss"].to_pylist() == losses
            assert survey(tmp_path).counts[0].finished == 2

    def test_written_at_the_same_time(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            paths = [put_file(tmp_path, some, there._hash) for some in (OURS, THEIRS, THIRD)]
            for path in paths:
                os.utime(path, (1e9, 1e9))
            first = min(range(3), key=lambda i: paths[i].name)
            assert there.load([KEY]) == {KEY: (OURS, THEIRS, THIRD)[first]}

    def test_four_processes_save_the_same_chunks(self, tmp_path: Path) -> None:
        """Each with outcomes of its own, all at once; they go on with the same ones."""
        chunks = [chunk(i) for i in range(30)]
        barrier = fork.Barrier(4)

        def work(number: int) -> None:
            with store(tmp_path / "study") as there, (tmp_path / f"{number}.log").open("w") as log:
                for one in chunks:
                    barrier.wait()
                    held = there.save(key(one), one, outcomes(one, loss=float(number)))
                    log.write(f"{[o.final['train_loss'] for o in held]}\n")

        processes = [in_process(work, number) for number in range(4)]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        logs = [(tmp_path / f"{number}.log").read_text().splitlines() for number in range(4)]
        assert logs[0] == logs[1] == logs[2] == logs[3]
        assert len(files(tmp_path / "study")) == len(chunks)
        with store(tmp_path / "study") as there:
            finished = there.load(map(key, chunks))
        assert [str([o.final["train_loss"] for o in finished[key(one)]]) for one in chunks] == logs[0]


class TestDiscard:
    def test_what_was_there_before(self, tmp_path: Path) -> None:
        fill(tmp_path, [ONE])
        with store(tmp_path) as there:
            assert there.discard(KEY)
            assert files(tmp_path) == []
            assert there.claim(KEY)

    def test_immediately_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However coarse the clock of the file system is: here it stands still for ten looks."""
        fill(tmp_path, [ONE])
        written = files(tmp_path)[0].stat().st_mtime
        looks = iter([written] * 10)
        monkeypatch.setattr(disk, "clock", lambda folder: next(looks, written + 0.01))
        with store(tmp_path) as there:
            assert there.discard(KEY)

    def test_what_came_later_stays(self, tmp_path: Path) -> None:
        """Two commands retry the same chunk; the second does not discard what the first has just computed."""
        fill(tmp_path, [ONE])
        with store(tmp_path) as a, store(tmp_path) as b:
            assert a.discard(KEY)
            a.save(KEY, ONE, OURS)
            assert not b.discard(KEY)
            assert not a.discard(KEY)
            assert b.load([KEY]) == {KEY: OURS}

    def test_removed_by_another(self, tmp_path: Path) -> None:
        """It has to be computed again, though it was not this store that removed it."""
        fill(tmp_path, [ONE])
        with store(tmp_path) as a, store(tmp_path) as b:
            assert a.discard(KEY)
            assert b.discard(KEY)

    def test_one_of_two_files_came_later(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            put_file(tmp_path, THEIRS, there._hash, age=10)
            put_file(tmp_path, OURS, there._hash)
            assert not there.discard(KEY)
            assert there.load([KEY]) == {KEY: OURS}

    def test_it_cannot_be_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        fill(tmp_path, [ONE])
        with store(tmp_path) as there:
            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", refused)
                with pytest.raises(
                    InputError, match=r"cannot write '.*\.parquet': Permission denied; make it writable"
                ):
                    there.discard(KEY)
            assert len(files(tmp_path)) == 1


def test_one_of_many_chunks_is_found_by_its_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pattern of names is applied to those of the key alone, so that a claim costs little more than a listing."""
    from lightball.studies.store import reading

    asked: list[str] = []
    with store(tmp_path) as there:
        for i in range(1000):
            (tmp_path / "chunks" / f"{i:024x}.{i:016x}.parquet").touch()
        key_in = reading.key_in
        monkeypatch.setattr(reading, "key_in", lambda name: asked.append(name) or key_in(name))
        assert not there.claim(f"{7:024x}")
        assert there.claim(KEY)
    assert asked == [f"{7:024x}.{7:016x}.parquet"]
