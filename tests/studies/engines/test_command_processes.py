"""Scripts as processes: how many run at once, and that none of them outlives its time, the engine or lightball."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lightball.studies.engines import guard
from lightball.studies.engines.command import prepare
from lightball.studies.engines.job import Engine
from lightball.studies.runs import Chunk, Run
from lightball.studies.settings import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")

RESULT = """echo '{"train_loss": 0.5}'"""
ARGUMENTS = "{lr} {momentum} {batch_size} {seed}"
# Deaf to SIGTERM, with a child that is too, and that sleeps in a child of its own; all tell their process ids.
STUBBORN = "trap '' TERM; echo $$ >> pids; (trap '' TERM; echo $BASHPID >> pids; sleep 600) & echo $! >> pids; wait"
KIND = "echo $$ >> pids; trap 'echo end >> ended; exit 0' TERM; sleep 600 & wait"


def start(code: str, folder: Path, num_workers: int = 1, timeout: float | None = None) -> Engine:
    command = f"bash -c {shlex.quote(f'cd {shlex.quote(str(folder))}; {code}')} script {ARGUMENTS}"
    return prepare(command, Settings(engine="command"), num_workers, timeout).start(folder)


def chunks(count: int, runs_each: int = 1) -> list[Chunk]:
    return [Chunk(tuple(Run(8, 0.4, (runs_each * i + j) << 32, 0.9) for j in range(runs_each))) for i in range(count)]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def runs(pid: str | int) -> bool:
    """A zombie does not: where nobody reaps orphans, the dead stay listed."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def none_runs(folder: Path) -> bool:
    """No process that wrote its id, no guard of a script in this folder, and no child of either."""
    table = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    named = [line for line in table.splitlines() if str(folder) in line and not line.startswith("Z")]
    return not named and not any(runs(pid) for pid in lines(folder / "pids"))


def test_a_timeout_ends_a_stubborn_script_and_its_children(tmp_path: Path) -> None:
    engine = start(STUBBORN, tmp_path, timeout=2)
    ((_, (outcome,)),) = engine.compute(chunks(1))
    assert outcome.error is not None
    assert outcome.error.startswith("timed out after 2 s (log: ")
    assert len(lines(tmp_path / "pids")) == 3
    assert none_runs(tmp_path)


def test_a_script_is_asked_to_end_first(tmp_path: Path) -> None:
    ((_, (outcome,)),) = start(KIND, tmp_path, timeout=2).compute(chunks(1))
    assert outcome.error is not None
    assert lines(tmp_path / "ended") == ["end"]


def test_children_that_a_script_leaves_behind_are_ended(tmp_path: Path) -> None:
    code = f"(trap '' TERM; sleep 600) & echo $! >> pids; sleep 600 & echo $! >> pids; {RESULT}"
    ((_, (outcome,)),) = start(code, tmp_path).compute(chunks(1))
    assert outcome.error is None
    assert len(lines(tmp_path / "pids")) == 2
    assert none_runs(tmp_path)


@pytest.mark.parametrize("code", [STUBBORN, KIND])
def test_close_ends_everything(tmp_path: Path, code: str) -> None:
    """From another thread than the one that computes, which then ends without an outcome."""
    engine = start(code, tmp_path, num_workers=2)
    finished: list[object] = []
    computing = threading.Thread(target=lambda: finished.extend(engine.compute(chunks(5))))
    computing.start()
    assert wait_for(lambda: len(lines(tmp_path / "pids")) == (6 if code is STUBBORN else 2))
    assert not none_runs(tmp_path)
    engine.close()
    assert none_runs(tmp_path)
    computing.join(30)
    assert not computing.is_alive()
    assert finished == []
    assert len(list((tmp_path / "logs").iterdir())) == 2
    engine.close()  # twice is fine


def test_close_before_anything_ran(tmp_path: Path) -> None:
    start(RESULT, tmp_path).close()


def test_a_consumer_that_stops_early(tmp_path: Path) -> None:
    engine = start(f"""[ "$4" = 0 ] && {{ sleep 1; {RESULT}; exit; }}; {STUBBORN}""", tmp_path, num_workers=2)
    computed = engine.compute(chunks(9))
    assert next(computed)[1][0].error is None
    assert wait_for(lambda: len(lines(tmp_path / "pids")) == 3)
    computed.close()  # type: ignore[attr-defined]
    assert none_runs(tmp_path)


def test_an_error_of_the_iterable_is_raised(tmp_path: Path) -> None:
    def failing() -> Iterator[Chunk]:
        yield chunks(1)[0]
        assert wait_for(lambda: len(lines(tmp_path / "pids")) == 3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(start(STUBBORN, tmp_path, num_workers=2).compute(failing()))
    assert none_runs(tmp_path)


def test_an_engine_computes_again(tmp_path: Path) -> None:
    engine = start(RESULT, tmp_path, num_workers=2)
    for count in (1, 0, 3):
        finished = list(engine.compute(chunks(count)))
        assert sorted(chunk.runs[0].seed for chunk, _ in finished) == [i << 32 for i in range(count)]
        assert all(outcome.error is None for _, outcomes in finished for outcome in outcomes)


def test_runs_of_a_chunk_come_in_order_even_if_one_fails(tmp_path: Path) -> None:
    wanted = chunks(2, runs_each=3)
    finished = dict(start(f"""[ "$4" = 1 ] && exit 5; {RESULT}""", tmp_path, num_workers=2).compute(wanted))
    assert set(finished) == set(wanted)
    assert all([o.run for o in outcomes] == list(chunk.runs) for chunk, outcomes in finished.items())
    assert [o.error is None for o in finished[wanted[0]]] == [True, False, True]


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_chunks_are_taken_only_when_a_worker_is_free(tmp_path: Path, num_workers: int) -> None:
    taken: list[Chunk] = []

    def recording(given: Sequence[Chunk]) -> Iterator[Chunk]:
        for chunk in given:
            taken.append(chunk)
            yield chunk

    computed = start(RESULT, tmp_path, num_workers).compute(recording(chunks(8)))
    assert taken == []
    for finished, _ in enumerate(computed):
        assert len(taken) <= finished + num_workers
        time.sleep(0.05)  # nothing is taken while the consumer is busy
        assert len(taken) <= finished + num_workers
    assert len(taken) == 8


def test_a_finished_chunk_does_not_wait_for_a_slow_one(tmp_path: Path) -> None:
    """The first script ends when all others have been handed over."""
    code = f"""if [ "$4" = 0 ]; then until [ -e go ]; do sleep 0.02; done; fi; {RESULT}"""
    order = []
    for chunk, _ in start(code, tmp_path, num_workers=2).compute(chunks(5)):
        order.append(chunk.runs[0].seed >> 32)
        if len(order) == 4:
            (tmp_path / "go").touch()
    assert order == [1, 2, 3, 4, 0]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_so_many_scripts_run_at_once(tmp_path: Path, num_workers: int) -> None:
    """Each waits until as many have begun as there are workers; and none sees more than those running."""
    code = f"""touch begun-$4 running-$4; until [ $(ls -d begun-* | wc -l) -ge {num_workers} ]; do sleep 0.02; done
        ls -d running-* | wc -l >> counts; rm running-$4; {RESULT}"""
    finished = list(start(code, tmp_path, num_workers, timeout=30).compute(chunks(2 * num_workers)))
    assert all(outcomes[0].error is None for _, outcomes in finished)
    assert max(map(int, lines(tmp_path / "counts"))) == num_workers


def test_threads_of_scripts_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""echo ${{OMP_NUM_THREADS:-unset}} >> threads; {RESULT}"""

    def threads(num_workers: int) -> str:
        list(start(code, tmp_path, num_workers).compute(chunks(1)))
        return lines(tmp_path / "threads")[-1]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads(1) == "unset"
    assert threads(1000) == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads(2) == "5"


STUDY = """
import sys
from pathlib import Path
from lightball.studies.engines.command import prepare
from lightball.studies.runs import Chunk, Run
from lightball.studies.settings import Settings

folder = Path(sys.argv[1])
engine = prepare(sys.argv[2], Settings(engine="command"), 2).start(folder)
try:
    for _ in engine.compute(Chunk((Run(8, 0.4, i << 32, 0.9),)) for i in range(9)):
        (folder / "outcome").touch()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_scripts_end_with_lightball(tmp_path: Path, number: signal.Signals) -> None:
    """Killed without a chance to end its scripts, or interrupted."""
    command = f"bash -c {shlex.quote(f'cd {shlex.quote(str(tmp_path))}; {STUBBORN}')} script {ARGUMENTS}"
    study = subprocess.Popen([sys.executable, "-c", STUDY, str(tmp_path), command], start_new_session=True)
    try:
        assert wait_for(lambda: len(lines(tmp_path / "pids")) == 6 or study.poll() is not None, 60)
        assert study.poll() is None
        study.send_signal(number)
        assert study.wait(30) == (130 if number == signal.SIGINT else -number)
        assert wait_for(lambda: none_runs(tmp_path), 10)  # two seconds, on an idle machine
    finally:
        study.kill()
    assert not (tmp_path / "outcome").exists()


def guarded(*words: str, parent: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", guard.__file__, str(parent or os.getpid()), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 137", 137),
        ("kill -TERM $$", -15),
        ("kill -KILL $$", -9),
        ("kill -HUP $$", -1),
        ("kill -SEGV $$", -11),
        ("kill -PIPE $$", -13),
    ],
)
def test_a_guard_ends_as_its_command_did(code: str, status: int) -> None:
    process = guarded("bash", "-c", f"echo out; {code}")
    assert process.communicate(timeout=30)[0] == "out\n"
    assert process.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_guard_that_is_asked_to_stop(number: signal.Signals) -> None:
    process = guarded("bash", "-c", "trap 'echo asked; exit 4' TERM; echo ready; sleep 600 & wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "asked\n"
    assert process.returncode == 4


def test_a_guard_of_nobody(tmp_path: Path) -> None:
    """Its parent died before it could look."""
    code = STUBBORN.replace("pids", shlex.quote(str(tmp_path / "pids")))
    assert guarded("bash", "-c", code, parent=os.getppid()).wait(30) < 0
    assert none_runs(tmp_path)


def test_a_guard_needs_nothing_of_lightball() -> None:
    imported = f"import runpy, sys; runpy.run_path({guard.__file__!r}); print('torch' in sys.modules, len(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", imported], capture_output=True, text=True, check=True)
    has_torch, count = done.stdout.split()
    assert has_torch == "False"
    assert int(count) < 80
