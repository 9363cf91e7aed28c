"""Modules that prepare for the step ahead, and settle after each; and the training loss on some examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_tasks import smooth, task

from lightball.errors import InputError
from lightball.oracles import Sampling
from lightball.training import Point, Recipe, load_model, train
from lightball.workloads import Data

RECIPE = Recipe(batch_size=60, effective_lr=0.3, epochs=3, drop_last=False, accumulate=3)
SEED = 3

Event = tuple[str, int, list[float]]
EVENTS: list[Event] = []


class Listening(nn.Module):
    """Writes down what it is told, and what it computes in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(20, 5)
        self.register_buffer("settled", torch.zeros((), dtype=torch.long))

    def prepare(self, step: int, inputs: Tensor) -> None:
        assert self.training
        EVENTS.append(("prepare", step, inputs[:, 0].tolist()))

    def settle(self) -> None:
        self.settled += 1
        EVENTS.append(("settle", int(self.settled), []))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            EVENTS.append(("forward", -1, x[:, 0].tolist()))
        return self.last(x)


@pytest.fixture(autouse=True)
def nothing_yet() -> Iterator[None]:
    EVENTS.clear()
    yield
    EVENTS.clear()


def of_kind(kind: str) -> list[Event]:
    return [event for event in EVENTS if event[0] == kind]


def check_order(num_steps: int, parts: int, first: int = 0) -> None:
    """prepare 0, prepare 1, step 0, settle, prepare 2, step 1, settle, …"""
    expected = [("prepare", first)]
    for step in range(first, num_steps):
        expected += [("prepare", step + 1)] * (step + 1 < num_steps)
        expected += [("forward", -1)] * parts + [("settle", step + 1)]
    assert [event[:2] for event in EVENTS] == expected
    told = [values for _, _, values in of_kind("prepare")]
    used = [values for _, _, values in of_kind("forward")]
    for step, values in enumerate(told):
        assert values == [x for part in used[step * parts : (step + 1) * parts] for x in part]


def test_each_step_is_announced_one_ahead_in_the_order_of_use() -> None:
    train(task(lambda: nn.Sequential(Listening())), RECIPE, SEED)
    check_order(num_steps=15, parts=3)
    inputs = task(Listening).train.inputs[:, 0]
    batches = [b for e in range(3) for b in Sampling(250, 60, drop_last=False).epoch(SEED, e).split(60)]
    assert [values for _, _, values in of_kind("prepare")] == [inputs[b].tolist() for b in batches]


def test_both_minibatches_of_svag_are_announced() -> None:
    train(task(Listening), Recipe(batch_size=50, effective_lr=0.3, ell=2), SEED)
    check_order(num_steps=10, parts=2)


def test_a_run_that_goes_on_announces_its_first_step(tmp_path: Path) -> None:
    def stop(point: Point) -> None:
        if point.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task(Listening), RECIPE, SEED, folder=tmp_path, checkpoint_every=7, on_point=stop)
    EVENTS.clear()
    train(task(Listening), RECIPE, SEED, folder=tmp_path)
    assert EVENTS.pop(0)[0] == "forward"  # of the fingerprint
    check_order(num_steps=15, parts=3, first=7)
    assert int(load_model(task(Listening), tmp_path).settled) == 15  # type: ignore[arg-type]


def test_two_passes_a_step_are_refused() -> None:
    message = "^clip_norm is 1.0 with in_backward, which takes two passes a step, but the model prepares for one: leave"
    with pytest.raises(InputError, match=message):
        train(task(Listening), replace(RECIPE, clip_norm=1.0, in_backward=True), SEED)
    train(task(Listening), replace(RECIPE, in_backward=True), SEED)
    check_order(num_steps=15, parts=3)


def test_the_loss_is_measured_on_the_examples_named_for_it(tmp_path: Path) -> None:
    whole = smooth(torch.float64)
    some = replace(whole, measured=Data(whole.train.inputs[:70], whole.train.targets[:70]))
    on_some, on_all = train(some, RECIPE, SEED, folder=tmp_path), train(whole, RECIPE, SEED)
    model = load_model(some, tmp_path)
    with torch.no_grad():
        loss = whole.loss(model(whole.train.inputs[:70]), whole.train.targets[:70]).mean()
    assert on_some.points[-1].train_loss == pytest.approx(float(loss), rel=1e-13)
    assert on_some.points[-1].train_loss != pytest.approx(on_all.points[-1].train_loss, rel=1e-3)
    assert [p.test_accuracy for p in on_some.points] == [p.test_accuracy for p in on_all.points]
