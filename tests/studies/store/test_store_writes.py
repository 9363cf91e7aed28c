"""A name holds all of a file or what was there before: killed writers, a full disk, folders that cannot be written."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_up import chunk, files, fill, in_process, key, outcomes, store

from lightball.errors import InputError
from lightball.studies.store import load, survey
from lightball.studies.store.disk import write

FULL = "No space left on device; make room and run the same command again"


@pytest.mark.parametrize("atomic", [True, False])
def test_killed_while_saving(tmp_path: Path, atomic: bool) -> None:
    """Writers of large chunks are killed at random moments, five times; the control writes to the final name."""

    def save() -> None:
        if not atomic:
            patch = pytest.MonkeyPatch()
            patch.setattr("lightball.studies.store.chunk_folder.write", slow_plain_write)
        numbers = random.Random()
        with store(tmp_path) as there:
            while True:
                one = chunk(numbers.randrange(2**40), runs=50)
                there.save(key(one), one, outcomes(one, epochs=500))

    for _ in range(5):
        process = in_process(save)
        before = len(names(tmp_path))
        while len(names(tmp_path)) < before + 3:
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    damaged = survey(tmp_path).damaged
    assert bool(damaged) is not atomic
    if atomic:
        assert load(tmp_path).num_rows == 50 * len(names(tmp_path)) > 0
        with store(tmp_path, said := []) as there:
            keys = [name.partition(".")[0] for name in names(tmp_path)]
            assert set(there.load(keys)) == set(keys)
        assert said == []


def slow_plain_write(path: Path, data: bytes) -> None:
    """As most programs write, but with time enough to be killed in the middle."""
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), 2**14):
            file.write(data[start : start + 2**14])
            time.sleep(0.01)


def names(folder: Path) -> list[str]:
    if not (folder / "chunks").exists():
        return []
    return [path.name for path in files(folder) if not path.name.startswith(".")]


class TestFullDisk:
    """By an error of the operating system, by a limit on the size of files, and in earnest."""

    def test_nothing_is_lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done, late = chunk(1), chunk(2)
        with store(tmp_path) as there:
            there.save(key(done), done, outcomes(done))
            there.save_json("margins.json", {"8": 0.1})
            assert there.claim(key(late))
            before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", full)
                for action in (
                    lambda: there.save(key(late), late, outcomes(late)),
                    lambda: there.save_json("margins.json", {"8": 0.2}),
                    lambda: there.freeze({8: {"width": 3}}),
                    lambda: there.plan("tuning", {key(late): late}),
                ):
                    with pytest.raises(InputError, match=rf"cannot write '{tmp_path}/.*': {FULL}"):
                        action()
            assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
            there.save(key(late), late, outcomes(late))
            there.save_json("margins.json", {"8": 0.2})
            assert there.freeze({8: {"width": 3}}) == {8: {"width": 3}}
            assert len(there.load([key(done), key(late)])) == 2

    def test_the_index_is_no_loss(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lightball.studies.store.reading.MANY", 1)
        chunks = [chunk(i) for i in range(5)]
        fill(tmp_path, chunks)
        monkeypatch.setattr("os.fsync", full)
        assert len(store(tmp_path).load(map(key, chunks))) == 5
        assert load(tmp_path).num_rows == 10
        assert list(tmp_path.glob("index*")) == []

    def test_a_limit_on_files(self, tmp_path: Path) -> None:
        """A process may write files of 2,000 bytes at most, and a chunk needs more."""

        def child() -> None:
            import resource

            one = chunk()
            with store(tmp_path) as there:
                assert there.claim(key(one))
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
                with pytest.raises(InputError, match="File too large; make room and run the same command again"):
                    there.save(key(one), one, outcomes(one))
                assert list((tmp_path / "chunks").iterdir()) == []
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                there.save(key(one), one, outcomes(one))
                assert len(there.load([key(one)])) == 1

        process = in_process(child)
        process.join()
        assert process.exitcode == 0

    def test_a_disk_of_its_own(self, tmp_path: Path) -> None:
        """A disk of 400 KiB is filled, emptied a little, and at last made read-only."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = f"mount -t tmpfs -o size=400k none {disk}"
        in_namespace = ["unshare", "-Urm", "sh", "-c"]
        try:
            subprocess.run([*in_namespace, mount], check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a disk cannot be mounted in a namespace here: {error}")
        run = f'{mount} && exec "{sys.executable}" "{__file__}" {disk}'
        done = subprocess.run([*in_namespace, run], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[-2] == "all of it holds"


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_a_disk(disk: Path) -> None:
    """What is tried on the small disk, in a process that sees it."""
    ballast, folder = disk / "ballast", disk / "study"
    ballast.write_bytes(b"x" * 100_000)
    saved: list[str] = []

    def save_until_full() -> None:
        with store(folder) as there:
            assert set(there.load(saved)) == set(saved)
            for seed in range(len(saved), 1000):
                one = chunk(seed)
                assert there.claim(key(one))
                there.save(key(one), one, outcomes(one))
                saved.append(key(one))

    for _ in range(2):
        count = len(saved)
        with pytest.raises(InputError, match=rf"cannot write '{folder}/.*': {FULL}"):
            save_until_full()
        assert len(saved) >= count + 5
        assert load(folder).num_rows == 2 * len(saved)
        assert survey(folder).damaged == ()
        assert list(folder.rglob("*.tmp")) == []
        ballast.unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(InputError) as caught:
        save_until_full()
    line = f"cannot write to the folder '{folder}': Read-only file system; choose another with --out"
    assert str(caught.value) == line
    assert load(folder).num_rows == 2 * len(saved)
    assert survey(folder).counts[0].finished == 2 * len(saved)
    print("all of it holds")


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("file", "(File exists|Not a directory)"), ("file/here", "Not a directory")):
        message = rf"cannot write to the folder '{tmp_path}/{name}': {reason}; choose another with --out"
        with pytest.raises(InputError, match=message):
            store(tmp_path / name).__enter__()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    fill(tmp_path / "locked", [chunk()])
    for path in (tmp_path / "locked" / "chunks", tmp_path / "locked"):
        path.chmod(0o555)
    with pytest.raises(InputError, match="Permission denied; choose another with --out"):
        store(tmp_path / "locked").__enter__()
    assert load(tmp_path / "locked").num_rows == 2


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to() -> None:
    with pytest.raises(InputError, match="cannot write to the folder '/proc/here': "):
        store(Path("/proc/here")).__enter__()


def test_what_was_there_stays_where_a_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write(path, b"before")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=FULL):
        write(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


if __name__ == "__main__":
    fill_a_disk(Path(sys.argv[1]))
