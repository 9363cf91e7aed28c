"""Two processes train as one does, to rounding; they stop, refuse and go on alike, also after one of them is killed."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ranks_of_a_test as cases
import torch

from lightball.errors import InputError
from lightball.oracles import Sampling
from lightball.training import find_ranks, load_model

pytest.importorskip("accelerate")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

GROUPS = [f"groups, {parts} micro-batches" for parts in (1, 2, 4)]
TOGETHER = [*cases.RECIPES, *GROUPS, "diverging", "refusals", "announced", "stopped"]
TIME_LIMIT = 300


def launch(folder: Path, names: Sequence[str], size: int = 2) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, str(Path(cases.__file__)), str(folder), *names],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finished(processes: Sequence[subprocess.Popen[str]]) -> list[list[Any]]:
    """What each process printed, line by line; all must have ended well."""
    ended = [process.communicate(timeout=TIME_LIMIT) for process in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), "\n".join(err[-2000:] for _, err in ended)
    return [[json.loads(line) for line in out.splitlines()] for out, _ in ended]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The results of both processes by case."""
    folder = tmp_path_factory.mktemp("two")
    first, second = finished(launch(folder, TOGETHER))
    return {name: [a, b] for name, a, b in zip(TOGETHER, first, second, strict=True)}


def numbers(history: dict[str, Any]) -> list[float]:
    return [math.nan if v is None else v for point in history["points"] for v in point.values()]


@pytest.mark.parametrize("name", [*cases.RECIPES, "diverging"])
def test_the_same_history_as_one_process(name: str, two: dict[str, list[Any]], tmp_path: Path) -> None:
    one = json.loads(json.dumps(cases.run(name, tmp_path, None)))
    first, second = two[name]
    assert repr(first) == repr(second)
    assert first["failed_at"] == one["failed_at"]
    assert len(first["points"]) == len(one["points"])
    tolerance = 0.02 if name == "float16" else 1e-11
    assert numbers(first) == pytest.approx(numbers(one), rel=tolerance, nan_ok=True)
    if name == "diverging":
        assert one["failed_at"] is not None
    else:
        losses = [point["train_loss"] for point in one["points"]]
        assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("name", GROUPS)
def test_batch_norm_over_groups_knows_neither_processes_nor_micro_batches(
    name: str, two: dict[str, list[Any]], tmp_path: Path
) -> None:
    """Two groups in each process's part of a micro-batch, then one, then half of one."""
    one = json.loads(json.dumps(cases.run(GROUPS[0], tmp_path, None)))
    first, second = two[name]
    assert first == second
    losses = [[point["train_loss"] for point in history["points"]] for history in (one, first)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0][-1] < losses[0][0] - 0.05


def test_what_two_processes_refuse(two: dict[str, list[Any]]) -> None:
    first, second = two["refusals"]
    assert first[:-1] == second[:-1]
    uneven, micro, last, in_backward, norm, other, apart = first
    assert uneven == (
        "batch size 25 does not divide among 2 processes: choose a batch size that is a multiple of 2, or another "
        "number of processes"
    )
    assert micro.startswith("batch size 50 in micro-batches of 11 and 13 does not divide among 2 processes: choose a")
    assert "a multiple of 8, or" in micro
    assert last.startswith("an epoch's last batch, of 1 examples does not divide among 2 processes: choose drop_last")
    assert "in_backward=True in one of 2 processes" in in_backward
    assert norm.startswith("norm is a BatchNorm1d, which would normalise by the part of a batch that each of 2")
    assert "holds another run, with seed 3, not 4" in other
    assert "does not hold the same checkpoints for all 2 processes" in apart


def test_modules_are_told_of_the_inputs_of_their_process(two: dict[str, list[Any]], tmp_path: Path) -> None:
    inputs = cases.odd_sizes().train.inputs[:, 0]
    steps_per_epoch = len(inputs) // 48
    for rank, told in enumerate(two["announced"]):
        assert [step for step, _ in told] == list(range(3 * steps_per_epoch))
        for step, values in told:
            epoch, position = divmod(step, steps_per_epoch)
            batch = Sampling(len(inputs), 48).epoch(cases.SEED, epoch).split(48)[position]
            mine = torch.cat([part.chunk(2)[rank] for part in batch.chunk(2)])
            assert values == inputs[mine].tolist()


def test_a_deadline_that_one_process_sees_stops_both_at_one_step(two: dict[str, list[Any]]) -> None:
    first, second = two["stopped"]
    assert first[:2] == second[:2]
    assert first[0].startswith("the time is up after 8 of 15 steps")
    assert "step-000008" in first[1]
    assert first[2] == second[2] == two["SGDM"][0]


def test_a_killed_process_ends_the_other_and_both_go_on(two: dict[str, list[Any]], tmp_path: Path) -> None:
    processes = launch(tmp_path, ["killed"])
    _, err = processes[0].communicate(timeout=TIME_LIMIT)
    processes[1].communicate(timeout=TIME_LIMIT)
    assert processes[1].returncode == -9
    assert processes[0].returncode not in (0, None)
    assert "ConnectionError" in err
    assert "one of them has ended; start all again" in err
    kept = sorted(path.name for path in (tmp_path / "killed/checkpoints").glob("step-*"))
    assert kept[-1] in ("step-000006", "step-000008")  # step 8 is measured before it may be kept
    first, second = finished(launch(tmp_path, ["killed"]))
    assert first == second == [two["SGDM"][0]]
    lines = [json.loads(line) for line in (tmp_path / "killed/curve.jsonl").read_text().splitlines()]
    assert lines == first[0]["points"]
    load_model(cases.odd_sizes(), tmp_path / "killed")
    # and in one process, which finds nothing left to do
    assert cases.run("killed", tmp_path, None) == first[0]


def test_a_single_process_has_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert find_ranks() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert find_ranks() is None


def test_what_a_launcher_must_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^WORLD_SIZE is 2, but RANK and MASTER_ADDR and MASTER_PORT not set: start"):
        find_ranks()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match=r"^WORLD_SIZE is 'two', but must be the number of processes"):
        find_ranks()


def test_accelerate_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match=r"in 2 processes needs accelerate, .+: pip install lightball\[transformers\]"):
        find_ranks()
