"""Worker processes that die: real deaths, known by their item, retried, and without harm to the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lightball.errors import InputError
from lightball.studies.engines.pool import ATTEMPTS, Crash, Pool

Answer = Callable[[int], tuple[int, int]]


def squares(folder: str) -> Answer:
    """Squares; 3 kills its worker, 4 raises, 5 kills its worker the first time; every attempt leaves a mark."""
    import os
    import signal
    from pathlib import Path

    def answer(item: int) -> tuple[int, int]:
        marks = len(list(Path(folder).glob(f"{item}-*")))
        Path(folder, f"{item}-{marks}").touch()
        if item == 3 or (item == 5 and not marks):
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 4:
            raise ValueError("bad luck\nand more")
        return item * item, os.getpid()

    return answer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, object], Path]:
    folder = tmp_path_factory.mktemp("marks")
    with closing(Pool(squares, (str(folder),), 2)) as pool:
        return dict(pool.map(range(8))), folder


def test_every_item_has_an_answer(finished: tuple[dict[int, object], Path]) -> None:
    answers, _ = finished
    assert set(answers) == set(range(8))
    assert [answers[i][0] for i in (0, 1, 2, 5, 6, 7)] == [0, 1, 4, 25, 36, 49]  # type: ignore[index]


def test_work_is_done_in_other_processes(finished: tuple[dict[int, object], Path]) -> None:
    assert os.getpid() not in {a[1] for a in finished[0].values() if isinstance(a, tuple)}


def test_the_last_error_is_kept_in_one_line(finished: tuple[dict[int, object], Path]) -> None:
    answers, _ = finished
    assert answers[3] == Crash("the worker process died (SIGKILL(-9)), 3 times")
    assert answers[4] == Crash("ValueError: bad luck")


@pytest.mark.parametrize(("item", "attempts"), [(0, 1), (3, ATTEMPTS), (4, ATTEMPTS), (5, 2), (7, 1)])
def test_attempts(finished: tuple[dict[int, object], Path], item: int, attempts: int) -> None:
    assert len(list(finished[1].glob(f"{item}-*"))) == attempts


def test_nothing_is_taken_in_advance(tmp_path: Path) -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in (0, 1, 2, 6, 7, 8, 9):
            taken.append(i)
            yield i

    with closing(Pool(squares, (str(tmp_path),), 2)) as pool:
        for done, _ in enumerate(pool.map(items()), start=1):
            assert len(taken) <= done + 2


def refuse(_: str) -> Answer:
    from lightball.errors import InputError

    raise InputError("the task is another one")


def test_bad_input_is_raised_and_not_tried_again(tmp_path: Path) -> None:
    with closing(Pool(refuse, (str(tmp_path),), 1)) as pool, pytest.raises(InputError, match="the task is another one"):
        list(pool.map([1]))


def sleeper(_: str) -> Callable[[int], int]:
    import time

    def answer(item: int) -> int:
        time.sleep(600 * item)
        return item

    return answer


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> set[int]:
    listed = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "LokyProcess"], capture_output=True, text=True)
    return {int(pid) for pid in listed.stdout.split()}


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to see processes")
def test_close_ends_busy_workers() -> None:
    before = children()
    pool: Pool[int, int] = Pool(sleeper, ("",), 2)
    answers = pool.map([0, 1, 1])
    assert next(answers) == (0, 0)
    workers = children() - before
    assert workers
    pool.close()
    assert wait_for(lambda: not any(map(alive, workers)))


ORPHANS = """
import sys
from test_pool import sleeper
from lightball.studies.engines.pool import Pool
pool = Pool(sleeper, ("",), 2)
answers = pool.map([0, 0, 1, 1])
next(answers); next(answers); print("ready", flush=True)
next(answers)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to see processes")
def test_workers_end_when_their_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        listed = subprocess.run(["pgrep", "-s", str(parent.pid)], capture_output=True, text=True).stdout.split()
        workers = [int(pid) for pid in listed if int(pid) != parent.pid]
        assert len(workers) >= 2
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_for(lambda: not any(map(alive, workers)))
    finally:
        os.killpg(parent.pid, signal.SIGKILL) if parent.poll() is None else None
