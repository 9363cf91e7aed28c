"""kill -9 at any moment: the same call goes on, to the bit, with dropout, BatchNorm, momentum, clipping, accumulation.

Processes are killed from outside at moments of their own choosing, and kill themselves at moments of ours: between any
two of the writes of a checkpoint, and while a point is on its way into the curve.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_tasks import noisy

from lightball.training import History, Recipe, train

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and fork")

RECIPE = Recipe(25, 0.3, momentum=0.9, epochs=4, clip_norm=1.0, accumulate=2, eval_every=3, weight_decay=1e-3)
LAST = "checkpoints/step-000040/tensors.safetensors"

# Trains slowly enough to be killed on the way, and says which steps it has measured.
SLOW = """
import signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_resume_after_kill import RECIPE, noisy, train

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

def say(point):
    print(point.step, flush=True)
    time.sleep(60 if point.step >= 36 else 0.02)  # it never ends by itself

train(noisy(), RECIPE, 1, folder=Path(sys.argv[1]), checkpoint_every=1, on_point=say)
"""

# Forks a child for each moment, which kills itself there: before the n-th call of a function of os or Path.
AT_MOMENTS = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_resume_after_kill import MOMENTS, RECIPE, noisy, train
from lightball.training import checkpoints, curves

def kill_before(owner, name, count):
    calls, real = [], getattr(owner, name)
    def call(*arguments, **options):
        calls.append(0)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(owner, name, call)

for i, (owner, name, count) in enumerate(MOMENTS):
    if (child := os.fork()) == 0:
        kill_before({"Path": Path, "checkpoints": checkpoints, "curves": curves}[owner], name, count)
        train(noisy(), RECIPE, 1, folder=Path(sys.argv[1]) / str(i), checkpoint_every=2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (owner, name, count, status)
"""

MOMENTS = [
    *[("checkpoints", "_flush", n) for n in (1, 2, 3, 4, 37, 39, 40)],  # four to a checkpoint: the first and the tenth
    *[("Path", "replace", n) for n in (2, 3, 12)],  # the first is the curve's
    ("checkpoints", "save_file", 9),
    ("Path", "write_text", 8),  # state.json
    *[("checkpoints", "_prune", n) for n in (1, 3)],
    *[("curves", "_line", n) for n in (2, 9, 14)],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[History, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return train(noisy(), RECIPE, 1, folder=folder), folder


def assert_ends_like(whole: tuple[History, Path], folder: Path) -> None:
    """Going on here and now gives the history, weights, buffers, momentum and generators of the whole run."""
    history, reference = whole
    assert train(noisy(), RECIPE, 1, folder=folder, checkpoint_every=7) == history
    mine, its = load_file(folder / LAST), load_file(reference / LAST)
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in its)
    lines = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert lines == [asdict(point) for point in history.points]
    assert not list(folder.rglob("*.tmp"))


def run(script: str, folder: Path, **options) -> subprocess.Popen[str]:  # type: ignore[no-untyped-def]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def test_killed_from_outside_several_times(whole: tuple[History, Path], tmp_path: Path) -> None:
    for until, delay in ((0, 0.0), (9, 0.013), (21, 0.005)):
        process = run(SLOW, tmp_path)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= until:
                break
        time.sleep(delay)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert list(tmp_path.glob("checkpoints/step-*"))
    assert_ends_like(whole, tmp_path)


def test_killed_between_any_two_writes(whole: tuple[History, Path], tmp_path: Path) -> None:
    process = run(AT_MOMENTS, tmp_path)
    process.communicate()
    assert process.returncode == 0
    for i in range(len(MOMENTS)):
        assert_ends_like(whole, tmp_path / str(i))


def test_interrupted_by_ctrl_c(whole: tuple[History, Path], tmp_path: Path) -> None:
    process = run(SLOW, tmp_path, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 15:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err
    assert_ends_like(whole, tmp_path)
