"""A chunk is computed by one process at a time, and by another one soon after that has died.

Real processes, killed and stopped. The control creates claims without O_EXCL; then two processes win.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import backdate, chunk, files, fork, in_process, key, outcomes, store

from lightball.errors import InputError
from lightball.studies.store import claims as claims_module
from lightball.studies.store import survey
from lightball.studies.store.claims import Claims, claims_in
from lightball.studies.store.disk import clock
from lightball.studies.store.process import Process, this_process

ONE = chunk()
KEY = key(ONE)


def wait(holds: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def hold(folder: Path, lease: float, ready: Path, after: Path | None = None) -> None:
    """Claim the chunk and keep it until told to save it, or for ever."""
    with store(folder, lease=lease) as there:
        assert there.claim(KEY)
        ready.touch()
        wait(lambda: after is not None and after.exists())
        there.save(KEY, ONE, outcomes(ONE))


def holder(tmp_path: Path, lease: float = 60.0, after: Path | None = None) -> Any:
    process = in_process(hold, tmp_path / "study", lease, tmp_path / "ready", after)
    wait((tmp_path / "ready").exists)
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "claims").iterdir())


class TestOneStore:
    def test_claim_save_release(self, tmp_path: Path) -> None:
        with store(tmp_path) as a, store(tmp_path) as b:
            assert a.claim(KEY)
            assert not b.claim(KEY)
            assert not a.claim(KEY)
            a.save(KEY, ONE, outcomes(ONE))
            assert names(tmp_path) == []
            assert not b.claim(KEY)
            files(tmp_path)[0].unlink()
            assert b.claim(KEY)
        assert names(tmp_path) == []

    def test_the_claim_says_who(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            there.plan("tuning", {KEY: ONE})
            there.claim(KEY)
            facts = json.loads((tmp_path / "claims" / f"{KEY}.1").read_text())
            assert facts["process"]["pid"] == os.getpid()
            (claim,) = survey(tmp_path).in_flight
            assert (claim.key, claim.runs, claim.pid) == (KEY, 2, os.getpid())
            assert claim.since == facts["since"]

    def test_a_study_that_raises_releases(self, tmp_path: Path) -> None:
        def interrupted() -> None:
            with store(tmp_path) as there:
                there.claim(KEY)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert names(tmp_path) == []

    def test_finished_while_it_was_claimed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another process finishes the chunk and releases it between our look at the folder and our claim."""
        with store(tmp_path) as a, store(tmp_path) as b:
            claim = a._claims.claim

            def late(key: str) -> bool:
                assert b.claim(KEY)
                b.save(KEY, ONE, outcomes(ONE))
                return claim(key)

            monkeypatch.setattr(a._claims, "claim", late)
            assert not a.claim(KEY)
        assert names(tmp_path) == []

    def test_a_fork_owns_nothing(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            assert there.claim(KEY)

            def child() -> None:
                assert not there.claim(KEY)
                assert there.claim("other")
                there._claims.release(KEY)
                there.__exit__(None, None, None)

            process = in_process(child)
            process.join()
            assert process.exitcode == 0
            assert names(tmp_path) == [f"{KEY}.1"]

    def test_the_heart_beats(self, tmp_path: Path) -> None:
        with store(tmp_path, lease=0.2) as there:
            there.claim(KEY)
            path = tmp_path / "claims" / f"{KEY}.1"
            first = path.stat().st_mtime_ns
            wait(lambda: path.stat().st_mtime_ns > first)
            os.utime(path, (1e9, 1e9))  # as after a jump of the clock
            wait(lambda: path.stat().st_mtime_ns > first)

    def test_no_claim_where_it_cannot_be_written(self, tmp_path: Path) -> None:
        with store(tmp_path) as there:
            (tmp_path / "claims").rmdir()
            with pytest.raises(InputError, match=r"cannot write '.*/claims/.*\.1': No such file or directory; make it"):
                there.claim(KEY)


class TestExpiry:
    """Of claims that nobody renews: written by hand, in the name of other processes."""

    def write(self, folder: Path, process: Process | None, age: float, generation: int = 1) -> Path:
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        path = folder / "claims" / f"{KEY}.{generation}"
        facts = {"process": vars(process), "since": "then", "token": "t", "lease": 60.0} if process else None
        path.write_text(json.dumps(facts)[: None if facts else 2])
        modified = clock(folder) - age
        os.utime(path, (modified, modified))
        return path

    here = this_process()
    elsewhere = Process("elsewhere", "boot", None, here.pid, "1")

    @pytest.fixture
    def watch(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Moves the monotonic clock of those who watch claims on by some seconds."""
        moved = [0.0]
        monkeypatch.setattr(claims_module, "monotonic", lambda: time.monotonic() + sum(moved))
        return moved.append

    @pytest.mark.parametrize(
        ("process", "age", "free"),
        [
            (here, 0, "never"),
            (here, 100, "watched"),
            (here, -100, "watched"),
            (elsewhere, 0, "never"),
            (elsewhere, 50, "never"),
            (elsewhere, 100, "watched"),
            (elsewhere, -100, "watched"),
            (None, 0, "never"),
            (None, 100, "watched"),
            (Process(here.host, here.boot, here.namespace, here.pid, "1"), 0, "at once"),
            (Process(here.host, "an earlier boot", here.namespace, here.pid, here.start), 0, "never"),
            (Process(here.host, here.boot, "another container", 2**22 + 1, here.start), 0, "never"),
            (Process(here.host, here.boot, here.namespace, 2**22 + 1, here.start), 0, "at once"),
        ],
    )
    def test_who_is_dead(
        self, tmp_path: Path, process: Process | None, age: float, free: str, watch: Callable[[float], None]
    ) -> None:
        if process is not None and not Path("/proc/self/stat").exists():
            pytest.skip("no /proc to tell processes apart by")
        with store(tmp_path) as there:
            self.write(tmp_path, process, age)
            assert there.claim(KEY) is (free == "at once")
            if free != "at once":
                watch(15)
                assert not there.claim(KEY)
                watch(16)
                assert there.claim(KEY) is (free == "watched")
            assert names(tmp_path) == [f"{KEY}.{1 if free == 'never' else 2}"]
        assert names(tmp_path) == ([f"{KEY}.1"] if free == "never" else [])

    def test_touched_while_it_is_watched(self, tmp_path: Path, watch: Callable[[float], None]) -> None:
        with store(tmp_path) as there:
            path = self.write(tmp_path, self.elsewhere, 100)
            assert not there.claim(KEY)
            watch(31)
            os.utime(path)
            assert not there.claim(KEY)
            backdate([path], 90)
            assert not there.claim(KEY)  # another silence, watched from its own beginning
            watch(31)
            assert there.claim(KEY)

    def test_the_highest_generation_owns(self, tmp_path: Path, watch: Callable[[float], None]) -> None:
        self.write(tmp_path, self.elsewhere, 100, 9)
        self.write(tmp_path, self.elsewhere, 0, 10)
        with store(tmp_path) as there:
            assert not there.claim(KEY)
            watch(31)
            assert not there.claim(KEY)
            self.write(tmp_path, self.elsewhere, 100, 10)
            assert not there.claim(KEY)
            watch(31)
            assert there.claim(KEY)
            assert names(tmp_path) == [f"{KEY}.11"]

    def test_foreign_names_are_no_claims(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, None, 0)
        for name in (f"{KEY}.x", KEY, ".1", f".{KEY}.1.tmp", f"{KEY}.²", "123"):
            (path.parent / name).touch()
        path.unlink()
        with store(tmp_path) as there:
            assert there.claim(KEY)
            assert survey(tmp_path).in_flight == ()

    def take_both(self, folder: Path, monkeypatch: pytest.MonkeyPatch, watch: Callable[[float], None]) -> int:
        """How many win of two processes that have both seen the same dead claim before either creates its own."""
        path = self.write(folder, self.elsewhere, 100)
        seen = claims_in(path.parent, KEY)
        a, b = (Claims(path.parent, 60.0) for _ in range(2))
        assert not a.claim(KEY)
        assert not b.claim(KEY)
        watch(31)
        wins = int(a.claim(KEY))
        looks = iter([seen])
        with monkeypatch.context() as patch:
            patch.setattr(claims_module, "claims_in", lambda *where: next(looks, None) or claims_in(*where))
            wins += b.claim(KEY)
        a.close()
        b.close()
        return wins

    def test_both_saw_it_dead(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Callable[[float], None]
    ) -> None:
        assert self.take_both(tmp_path, monkeypatch, watch) == 1

    def test_control_two_winners_without_o_excl(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Callable[[float], None]
    ) -> None:
        monkeypatch.setattr(os, "O_EXCL", 0)
        assert self.take_both(tmp_path, monkeypatch, watch) == 2

    def test_slow_in_creating(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Callable[[float], None]
    ) -> None:
        """The claim that was seen dead was taken over, given up and claimed afresh, all before we created ours."""
        path = self.write(tmp_path, self.elsewhere, 100)
        seen = claims_in(path.parent, KEY)
        with store(tmp_path) as a, store(tmp_path) as b:
            assert not b.claim(KEY)
            watch(31)
            path.unlink()
            assert a.claim(KEY)
            looks = iter([seen])
            with monkeypatch.context() as patch:
                patch.setattr(claims_module, "claims_in", lambda *where: next(looks, None) or claims_in(*where))
                assert not b.claim(KEY)
            assert names(tmp_path) == [f"{KEY}.1"]


class TestLeftovers:
    """What a process leaves that is killed between storing a chunk and releasing its claim."""

    def test_they_are_removed(self, tmp_path: Path) -> None:
        folder = tmp_path / "study"

        def killed_before_the_release() -> None:
            with store(folder) as there:
                assert there.claim(KEY)
                there._claims.release = lambda key: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
                there.save(KEY, ONE, outcomes(ONE))

        process = in_process(killed_before_the_release)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert names(folder) == [f"{KEY}-save.1", f"{KEY}.1"]
        with store(folder) as there:
            assert there.claim("alive")
            with store(folder):
                assert names(folder) == ["alive.1"]
            assert len(there.load([KEY])[KEY]) == 2

    def test_a_claim_that_cannot_be_read_is_respected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        with store(tmp_path) as a, store(tmp_path) as b:
            assert a.claim(KEY)
            (tmp_path / "claims" / f"{KEY}.1").rename(tmp_path / "claims" / f"{KEY}.2")
            with monkeypatch.context() as patch:
                patch.setattr(Path, "read_bytes", refused)
                assert not b.claim(KEY)
            assert names(tmp_path) == [f"{KEY}.2"]


class TestProcesses:
    def test_a_killed_holder_is_succeeded_at_once(self, tmp_path: Path) -> None:
        process = holder(tmp_path)
        with store(tmp_path / "study") as there:
            assert not there.claim(KEY)
            os.kill(process.pid, signal.SIGKILL)
            wait(lambda: there.claim(KEY), 10.0)  # far below the lease; its parent has not even asked for it
            there.save(KEY, ONE, outcomes(ONE))
            assert names(tmp_path / "study") == []
        process.join()

    def test_a_stopped_holder_loses_it_and_may_wake(self, tmp_path: Path) -> None:
        go = tmp_path / "go"
        process = holder(tmp_path, 0.4, go)
        folder = tmp_path / "study"
        os.kill(process.pid, signal.SIGSTOP)
        with store(folder, lease=0.4) as there:
            wait(lambda: there.claim(KEY))
            assert names(folder) == [f"{KEY}.2"]
            os.kill(process.pid, signal.SIGCONT)
            go.touch()
            process.join()
            assert process.exitcode == 0
            assert names(folder) == [f"{KEY}.2"]  # it has released nothing but its own
            there.save(KEY, ONE, outcomes(ONE))
            assert len(there.load([KEY])[KEY]) == 2
        assert names(folder) == []

    def test_a_live_holder_keeps_it(self, tmp_path: Path) -> None:
        process = holder(tmp_path, 1.0)
        with store(tmp_path / "study", lease=1.0) as there:
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                assert not there.claim(KEY)
                time.sleep(0.05)
        process.kill()
        process.join()

    def test_a_suspend_takes_nothing_from_live_holders(self, tmp_path: Path) -> None:
        """Every claim looks old after it, some at the next look too, before the threads of their owners touch them."""
        folder = tmp_path / "study"
        keys = [f"{KEY}-{i}" for i in range(3)]

        def own(key: str) -> None:
            with store(folder, lease=4.0) as there:
                assert there.claim(key)
                (tmp_path / key).touch()
                time.sleep(60)

        processes = [in_process(own, each) for each in keys]
        try:
            wait(lambda: all((tmp_path / each).exists() for each in keys))
            with store(folder, lease=4.0) as there:
                for seconds in (0.5, 2.6):  # the second is longer than the watch
                    backdate((folder / "claims").iterdir(), 1000)
                    end = time.monotonic() + seconds
                    while time.monotonic() < end:
                        assert not any([there.claim(each) for each in keys])  # noqa: C419, all of them are tried
                        time.sleep(0.02)
                assert names(folder) == [f"{each}.1" for each in keys]
        finally:
            for process in processes:
                process.kill()
                process.join()

    def test_four_compute_each_chunk_once(self, tmp_path: Path) -> None:
        chunks = [chunk(i, runs=1) for i in range(200)]

        def work(name: int) -> None:
            order = random.Random(name).sample(chunks, len(chunks))
            with store(tmp_path / "study") as there, (tmp_path / f"{name}.log").open("w") as log:
                while len(there.load(map(key, chunks))) < len(chunks):
                    for one in order:
                        if there.claim(key(one)):
                            log.write(f"{key(one)}\n")
                            there.save(key(one), one, outcomes(one))

        processes = [in_process(work, name) for name in range(4)]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        computed = Counter(line for path in tmp_path.glob("*.log") for line in path.read_text().split())
        assert computed == Counter(map(key, chunks))
        assert len(files(tmp_path / "study")) == len(chunks)
        assert names(tmp_path / "study") == []

    def test_one_of_many_takes_a_dead_claim_over(self, tmp_path: Path) -> None:
        """Twelve contenders for each of 20 claims of a process that is gone: 3 processes of 4 threads."""
        folder = tmp_path / "study"
        gone = in_process(lambda: None)
        gone.join()
        keys = [key(chunk(i)) for i in range(20)]
        dead = Process(**{**vars(this_process()), "pid": gone.pid, "start": "1"})
        (folder / "claims").mkdir(parents=True)
        for each in keys:
            facts = {"process": vars(dead), "since": "then", "token": each, "lease": 60.0}
            (folder / "claims" / f"{each}.1").write_text(json.dumps(facts))
        barrier = fork.Barrier(12)

        def contend(name: int) -> None:
            def thread(number: int) -> None:
                claims = Claims(folder / "claims", 60.0)  # as if of a process of its own
                barrier.wait()
                for each in keys:
                    if claims.claim(each):
                        (tmp_path / f"{each}-{name}-{number}.won").touch()
                barrier.wait()
                claims.close()

            threads = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()

        processes = [in_process(contend, name) for name in range(3)]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert Counter(path.name.partition("-")[0] for path in tmp_path.glob("*.won")) == Counter(keys)
        assert names(folder) == []

    def test_threads_of_one_store(self, tmp_path: Path) -> None:
        won: list[int] = []
        barrier = threading.Barrier(8)
        with store(tmp_path) as there:

            def contend(number: int) -> None:
                barrier.wait()
                if there.claim(KEY):
                    won.append(number)

            threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        assert len(won) == 1
