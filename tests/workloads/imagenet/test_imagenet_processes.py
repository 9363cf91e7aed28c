"""Decoding processes start when there is work, are replaced when they die, and never outlive what they work for."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_images import small

from lightball.errors import InputError
from lightball.workloads import check
from lightball.workloads.imagenet.ahead import Ahead, chunks
from lightball.workloads.imagenet.decoders import Decoders, num_cores
from lightball.workloads.imagenet.images import Images, Moment, images_of
from lightball.workloads.imagenet.listing import list_folder

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

# At step 2 a process is forked that holds all pipes open, as those of a data loader do.
TRAINS = """
import os, sys, time, torch
from made_images import small
from lightball.training import Recipe, train

if __name__ == "__main__":
    def say(point):
        sleeper = 0
        if point.step == 2 and (sleeper := os.fork()) == 0:
            time.sleep(120)
            os._exit(0)
        print(point.step, sleeper, flush=True)

    torch.set_num_threads(1)
    train(small(sys.argv[1], workers=2), Recipe(16, 0.01, epochs=1, num_steps=10_000, eval_every=2, drop_last=True), 1,
          on_point=say)
"""


def descendants(ancestor: int) -> set[int]:
    """Processes below one, by the parents that /proc names."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        state, parent = state_of(int(path.name))
        if state != "Z":
            parents[int(path.name)] = parent
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in found | {ancestor}} - found:
        found |= new
    return found


def state_of(pid: int) -> tuple[str, int]:
    """The state of a process and its parent; Z where it has ended."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "Z", 0
    return state, int(parent)


def ended(pids: set[int], seconds: float = 20) -> bool:
    """Whether all of them are gone within the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all(state_of(pid)[0] == "Z" for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def decoders(folder: Path) -> Decoders:
    return Decoders(images_of(list_folder(folder)), 2)


def asked(count: int = 24) -> list[object]:
    return list(chunks(range(count), 32, Moment(1, 2)))


def pixels_here(decoders: Decoders, count: int = 24) -> list[bytes]:
    return [decoders.images.decode(part).pixels.tobytes() for part in asked(count)]


def workers_of(decoders: Decoders) -> set[int]:
    return set(decoders._executor._processes)


def test_none_is_started_for_a_check_or_by_sending(folder: Path) -> None:
    before = descendants(os.getpid())
    workload = small(folder, workers=2)
    check(workload, together=False)
    decoders = workload.model.decoders
    again = pickle.loads(pickle.dumps(decoders))  # its own bytes, as a worker process gets them
    assert again.num_workers == 2
    assert descendants(os.getpid()) == before


def test_a_process_that_is_killed_is_replaced(decoders: Decoders) -> None:
    queue = Ahead(decoders)
    queue.expect(iter(asked()))
    first = queue.take(8)
    old = workers_of(decoders)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    queue.expect(iter(asked()))
    rest = [queue.take(8) for _ in range(5)]
    found = [b"".join(part.tobytes() for part in pixels) for _, pixels, _ in (first, *rest)]
    assert found == pixels_here(decoders) * 2
    assert workers_of(decoders).isdisjoint(old)
    new = workers_of(decoders)
    assert ended(old)
    del queue
    decoders.close()
    assert ended(new)


class Deadly(Images):
    """Images of which decoding kills the process that does it."""

    def decode(self, asked: object) -> object:
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_kills_process_after_process_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightball.workloads.imagenet.decoders._ATTEMPTS", 2)
    images = images_of(list_folder(folder))
    decoders = Decoders(Deadly(images.source, images.stand_ins), 1)
    with pytest.raises(
        InputError, match=r"^the processes .* died 2 times over train/apple/apple_000.JPEG, train/apple/"
    ):
        decoders.finish(decoders.begin(asked(3)[0]))
    decoders.close()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_they_end_with_the_process_that_started_them(folder: Path, sent: signal.Signals) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler){TRAINS}"]
    with subprocess.Popen(
        [*command, str(folder)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        steps, forked = zip(*(map(int, process.stdout.readline().split()) for _ in range(2)), strict=True)
        assert steps == (0, 2)
        children = descendants(process.pid)
        decoding = {pid for pid in children if b"LokyProcess" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        assert len(decoding) == 2
        process.send_signal(sent)
        process.wait(30)
        try:
            assert ended(decoding)
        finally:
            os.kill(forked[1], signal.SIGKILL)
    assert ended(children)  # those that watch over semaphores too, which wait for all pipes to close


def test_only_so_many_images_are_decoded_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightball.workloads.imagenet.ahead._LIMIT", 32)
    decoders = Decoders(images_of(list_folder(folder)), 0)
    queue = Ahead(decoders)
    begun = []
    begin = decoders.begin
    monkeypatch.setattr(decoders, "begin", lambda part: begun.append(len(part.examples)) or begin(part))
    queue.expect(iter(asked(100)))
    assert sum(begun) == 32
    examples = [number for _ in range(10) for number in queue.take(10)[0]]
    assert examples == list(range(100))
    assert not queue


def test_cores_are_shared_among_the_processes_of_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    assert num_cores() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert num_cores() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert num_cores() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert num_cores() == 16


def test_a_long_evaluation_starts_them_and_they_end_with_the_task(folder: Path) -> None:
    workload = small(folder, workers=1)
    layer = workload.model()[0].eval()
    expected = small(folder).model()[0].eval()(workload.train.inputs)
    decoders = workload.model.decoders
    until = time.monotonic() + 60
    while not decoders._is_ready() and time.monotonic() < until:
        assert torch.equal(layer(workload.train.inputs), expected)
    assert decoders._is_ready()
    assert torch.equal(layer(workload.train.inputs), expected)
    pids = workers_of(decoders)
    assert pids
    del workload, layer, decoders
    gc.collect()
    assert ended(pids)
