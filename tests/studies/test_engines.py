"""Engines: in this process and in worker processes, to the same bit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.studies.engines.devices import check_workers, choose_device, num_cores
from lightball.studies.engines.tasks import open_task
from lightball.studies.engines.vectorised import InProcess, Trainers, Workers
from lightball.studies.runs import Chunk, Outcome, Run, pack, seeds
from lightball.studies.settings import Settings
from lightball.workloads import Data, Workload
from lightball.workloads.undisturbed import one_thread

SETTINGS = Settings(batch_sizes=(5, 16), epochs=2, compile="off")


def workload() -> Workload:
    """Made from lambdas and closures, which plain pickle refuses."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(96, 3, generator=draw)
    data = Data(inputs, (inputs.sum(dim=1) > 0).long())
    return Workload("signs", lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), data, data, data)


def chunks(width: int = 4) -> list[Chunk]:
    return [
        chunk
        for b in SETTINGS.batch_sizes
        for chunk in pack(
            [[Run(b, 0.3, seed, m) for m in (0.0, 0.9)] for seed in seeds("tune", 3)],
            width=width,
            compiled=False,
            phase="tune",
        )
    ]


def by_run(finished: Sequence[tuple[Chunk, list[Outcome]]]) -> dict[Run, Outcome]:
    return {outcome.run: outcome for _, outcomes in finished for outcome in outcomes}


@pytest.fixture(scope="module")
def here() -> dict[Run, Outcome]:
    return by_run(list(InProcess(Trainers(workload(), SETTINGS, "cpu")).compute(chunks())))


def test_every_run_of_every_chunk_comes_back(here: dict[Run, Outcome]) -> None:
    assert set(here) == {run for chunk in chunks() for run in chunk.runs}
    assert all(len(o.curve) == 3 and not o.failed for o in here.values())


def test_outcomes_come_in_the_order_of_their_chunk() -> None:
    for chunk, outcomes in InProcess(Trainers(workload(), SETTINGS, "cpu")).compute(chunks()):
        assert tuple(o.run for o in outcomes) == chunk.runs


def test_two_workers_compute_the_same_bits(here: dict[Run, Outcome]) -> None:
    engine = Workers(open_task(workload(), SETTINGS, "cpu"), SETTINGS, 2)
    with closing(engine):
        assert by_run(list(engine.compute(chunks()))) == here


def test_a_task_that_differs_in_the_worker_is_refused() -> None:
    task = open_task(workload(), SETTINGS, "cpu")
    engine = Workers(replace(task, for_workers=(*task.for_workers[:2], "another identity")), SETTINGS, 2)
    with closing(engine), pytest.raises(InputError, match="the task differs each time it is made"):
        list(engine.compute(chunks()))


def test_the_order_of_chunks_does_not_matter(here: dict[Run, Outcome]) -> None:
    assert by_run(list(InProcess(Trainers(workload(), SETTINGS, "cpu")).compute(chunks()[::-1]))) == here


def test_the_width_matters_by_rounding_only(here: dict[Run, Outcome]) -> None:
    alone = by_run(list(InProcess(Trainers(workload(), SETTINGS, "cpu")).compute(chunks(width=1))))
    for run, outcome in here.items():
        assert alone[run].curve == pytest.approx(outcome.curve, rel=1e-4)


class TestThreads:
    def test_one_inside_and_as_before_after_and_between(self) -> None:
        before = torch.get_num_threads()
        seen = []

        class Spy:
            def __getitem__(self, batch_size: int) -> Spy:
                return self

            def train(self, chunk: Chunk) -> list[Outcome]:
                seen.append(torch.get_num_threads())
                return []

        for _ in InProcess(Spy()).compute(chunks()):  # type: ignore[arg-type]
            assert torch.get_num_threads() == before
        assert set(seen) == {1}

    def test_restored_after_an_error(self) -> None:
        before = torch.get_num_threads()
        with pytest.raises(KeyboardInterrupt), one_thread():
            raise KeyboardInterrupt
        assert torch.get_num_threads() == before


class TestChoices:
    def test_device(self) -> None:
        assert choose_device("cpu") == "cpu"
        assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")

    @pytest.mark.parametrize("name", ["gpu", "meta", ""])
    def test_device_of_another_kind(self, name: str) -> None:
        with pytest.raises(InputError, match=f"device is '{name}', but must be auto, cpu, cuda, or one GPU such as"):
            choose_device(name)

    def test_device_that_is_not_there(self) -> None:
        with pytest.raises(InputError, match=r"device 'cuda:99' cannot be used: .* \(choose auto, cpu or cuda\)"):
            choose_device("cuda:99")

    def test_workers(self) -> None:
        assert check_workers(3) == 3
        assert check_workers(None) is None
        assert 1 <= num_cores() <= (os.cpu_count() or 1)
        for bad in (0, -2):
            with pytest.raises(InputError, match=f"workers is {bad}, but must be a whole number from 1 up"):
                check_workers(bad)
