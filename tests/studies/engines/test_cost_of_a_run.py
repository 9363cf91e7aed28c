"""What a plan says of a run of the process engine: its time, its memory, and what would fit where it does not.

Forward passes sleep, so that times follow from counts whatever else the machine does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.studies.engines import process
from lightball.studies.engines.measuring import evaluations, measure_run, num_steps
from lightball.studies.engines.memory import watch_peak
from lightball.studies.engines.process import measured, recipe, train_run
from lightball.studies.runs import Run
from lightball.studies.settings import Settings
from lightball.training import train
from lightball.workloads import Data, Workload
from lightball.workloads.undisturbed import one_thread

SETTINGS = Settings(engine="process", batch_sizes=(16,), epochs=3)
RUN = Run(16, 0.01, 1, 0.9)


def signs(count: int) -> Data:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return Data(inputs, (inputs.sum(dim=1) > 0).long())


class Acting(nn.Linear):
    """A layer that does something before each forward pass."""

    def __init__(self, act: Callable[[nn.Module, int], None]) -> None:
        super().__init__(4, 2)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.act(self, len(x))
        return super().forward(x)


def task(act: Callable[[nn.Module, int], None] = lambda layer, count: None) -> Workload:
    return Workload("task", lambda: Acting(act), signs(160), signs(32), signs(320))


def sleepy(layer: nn.Module, count: int) -> None:
    """A training step takes 10 ms, an evaluation of 32 examples 4 ms."""
    time.sleep(0.01 if layer.training else 0.004 * count / 32)


def cost(settings: Settings, kept: bool = False, workload: Workload | None = None) -> Any:
    with one_thread():
        return measure_run(workload or task(sleepy), recipe(settings, RUN), measured(settings, kept), "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ell": 3},
        {"num_steps": 7},
        {"eval_every": 2},
        {"eval_every": 2, "checkpoint": "median"},
        {"accumulate": 4},
        {"epochs": 12},
    ],
)
def test_the_time_of_a_run_with_all_its_evaluations(options: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **options)
    with one_thread():
        start = time.perf_counter()
        train_run(task(sleepy), settings, RUN, "cpu")
        taken = time.perf_counter() - start
    assert cost(settings).seconds == pytest.approx(taken, rel=0.5)


class TestEvaluations:
    """Of 160 training, 32 validation and 320 test examples, in 30 steps."""

    def evaluated(self, workload: Workload | None = None, kept: bool = False, **options: Any) -> float:
        settings = replace(SETTINGS, **options)
        found = evaluations(workload or task(), recipe(settings, RUN), measured(settings, kept))
        return sum(evaluation.times * len(evaluation.data) for evaluation in found)

    @pytest.mark.parametrize(
        ("options", "points"),
        [
            ({}, 4),
            ({"eval_every": 1}, 31),
            ({"eval_every": 4}, 9),  # 0, 4, …, 28, and 30
            ({"num_steps": 7}, 2),
            ({"num_steps": 7, "eval_every": 3}, 4),
            ({"ell": 2}, 4),
            ({"ell": 2, "eval_every": 4}, 16),
        ],
    )
    def test_as_many_as_the_loop_measures(self, options: dict[str, Any], points: int) -> None:
        seen: list[object] = []
        train(task(), recipe(replace(SETTINGS, **options), RUN), 1, on_point=seen.append)
        assert len(seen) == points
        assert self.evaluated(**options) == 160 * points + 2 * 32 + 2 * 320
        assert self.evaluated(kept=True, **options) == points * (160 + 32 + 320)

    def test_by_what_the_result_needs(self) -> None:
        assert self.evaluated(checkpoint="median") == 4 * (160 + 32 + 320)
        assert self.evaluated(checkpoint="best") == 4 * (160 + 32) + 2.5 * 320
        assert self.evaluated(checkpoint="best", kept=True) == 4 * (160 + 32) + 2.5 * 320

    def test_batches_that_take_longer_count_by_their_number(self) -> None:
        """The second half of the test data takes twenty times as long, as long texts do; the first comes first."""

        class Uneven(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                time.sleep(0.02 if x[0, 0] > 50 else 0.001)
                return super().forward(x)

        test = signs(640)
        test.inputs[320:] += 100.0
        uneven = Workload("uneven", lambda: Uneven(4, 2), signs(160), signs(32), test)
        estimate = cost(replace(SETTINGS, num_steps=1), workload=uneven).seconds
        assert estimate == pytest.approx(2 * (10 * 0.001 + 10 * 0.02), rel=0.5)

    def test_the_training_loss_on_some(self) -> None:
        fewer = replace(task(), measured=signs(16))
        assert self.evaluated(fewer) == 4 * 16 + 2 * 32 + 2 * 320


@pytest.mark.parametrize(
    ("options", "steps"), [({}, 30), ({"num_steps": 7}, 7), ({"num_steps": 7, "ell": 4}, 28), ({"ell": 2}, 60)]
)
def test_steps(options: dict[str, Any], steps: int) -> None:
    assert num_steps(task(), recipe(replace(SETTINGS, **options), RUN)) == steps


class TestMemory:
    def test_is_that_of_a_step(self) -> None:
        def hungry(layer: nn.Module, count: int) -> None:
            if layer.training:
                torch.ones(100_000_000)  # 400 MB, for a moment

        modest, greedy = cost(SETTINGS, workload=task()).memory, cost(SETTINGS, workload=task(hungry)).memory
        assert 350e6 < greedy - modest < 500e6
        assert 50e6 < modest < 3e9
        assert cost(SETTINGS, workload=task()).memory < greedy - 300e6, "an earlier peak is not forgotten"

    def test_without_a_system_that_forgets_it_is_the_largest_so_far(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError

        monkeypatch.setattr("pathlib.Path.write_text", refuse)
        monkeypatch.setattr("pathlib.Path.read_text", refuse)
        peak = watch_peak("cpu")()
        assert peak is not None
        assert 50e6 < peak < 20e9


def out_of_memory(layer: nn.Module, count: int) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


def allocator(layer: nn.Module, count: int) -> None:
    torch.empty(2**58)


class TestWhatFits:
    """Where a step needs more than there is."""

    def refusal(self, act: Callable[[nn.Module, int], None], most: int, **options: Any) -> str:
        def limited(layer: nn.Module, count: int) -> None:
            if layer.training and count > most:
                act(layer, count)

        with pytest.raises(InputError) as caught:
            cost(replace(SETTINGS, batch_sizes=(64,), **options), workload=task(limited))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.fixture(autouse=True)
    def larger(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(globals(), "RUN", replace(RUN, batch_size=64))

    @pytest.mark.parametrize("act", [out_of_memory, allocator])
    def test_the_largest_half_that_does(self, act: Callable[[nn.Module, int], None]) -> None:
        assert self.refusal(act, 20) == (
            "a step of 64 examples does not fit the memory of cpu: use --accumulate 4, which has micro-batches of 16, "
            "or batch sizes up to 16"
        )

    def test_of_micro_batches(self) -> None:
        assert self.refusal(out_of_memory, 9, accumulate=2).startswith(
            "a step of 64 examples, 32 at a time, does not fit the memory of cpu: use --accumulate 8, which has micro"
        )

    def test_not_even_one(self) -> None:
        assert "and one at a time neither: use a smaller model" in self.refusal(out_of_memory, 0)

    def test_another_error_on_the_way_is_said(self) -> None:
        def act(layer: nn.Module, count: int) -> None:
            if count < 64:
                raise RuntimeError("odd size")
            out_of_memory(layer, count)

        assert self.refusal(act, 4).endswith("and in micro-batches of 32 it fails: odd size")

    def test_another_error_is_not_about_memory(self) -> None:
        def act(layer: nn.Module, count: int) -> None:
            raise RuntimeError("out of luck\nand more")

        assert self.refusal(act, 4) == "the task cannot be trained at batch size 64: out of luck"


class TestMedian:
    """The median accuracies of the last five evaluations, and the last loss."""

    SETTINGS = replace(SETTINGS, checkpoint="median", eval_every=3)

    def test_of_the_points_of_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        histories = []

        def train(*arguments: Any, **options: Any) -> Any:
            histories.append(process_train(*arguments, **options))
            return histories[-1]

        process_train = process.train
        monkeypatch.setattr(process, "train", train)
        outcome = train_run(task(), self.SETTINGS, replace(RUN, effective_lr=1.0), "cpu")
        (history,) = histories
        assert outcome is not None
        assert len(history.points) == 11
        for measure in ("test_accuracy", "validation_accuracy"):
            values = sorted(getattr(point, measure) for point in history.points[-5:])
            assert values[0] != values[-1], "nothing would be seen"
            assert outcome.final[measure] == values[2]  # type: ignore[index]
        assert outcome.final["train_loss"] == history.points[-1].train_loss

    def test_of_fewer_without_the_untrained_one(self) -> None:
        few = train_run(task(), replace(self.SETTINGS, eval_every=30), RUN, "cpu")
        last = train_run(task(), SETTINGS, RUN, "cpu")
        assert few is not None
        assert last is not None
        assert few.final == last.final


class TestCurve:
    """The loss at whole epochs of ten steps and, last, at the end."""

    def curve(self, **options: Any) -> tuple[float, ...]:
        outcome = train_run(task(), replace(SETTINGS, eval_every=1, **options), RUN, "cpu")
        assert outcome is not None
        return outcome.curve

    def test_that_ends_within_an_epoch(self) -> None:
        whole = self.curve(epochs=3)
        assert len(whole) == 4
        partial = self.curve(num_steps=25)
        assert len(partial) == 4
        assert partial[:3] == whole[:3]
        assert whole[3] < partial[3] < whole[2]

    def test_that_ends_with_an_epoch(self) -> None:
        assert self.curve(num_steps=30) == self.curve(epochs=3)

    def test_that_ends_before_the_first(self) -> None:
        whole, partial = self.curve(epochs=1), self.curve(num_steps=4)
        assert len(partial) == 2
        assert partial[0] == whole[0] > partial[1] > whole[1]
