"""Schedules against torch.optim.lr_scheduler, and the text form."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from lightball.errors import InputError
from lightball.rules.schedules import constant, cosine, linear, parse, step_decay, values, warmup

NUM_STEPS = 40


def by_torch(make_scheduler, num_steps: int = NUM_STEPS) -> np.ndarray:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler(optimizer)
    factors = []
    for _ in range(num_steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(factors)


def sequential(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    ramp = lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=8)
    then = lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS - 8)
    return lr_scheduler.SequentialLR(optimizer, [ramp, then], milestones=[8])


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(
    ("schedule", "make_scheduler"),
    [
        (constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (step_decay((10, 20, 30), 0.5), lambda o: lr_scheduler.StepLR(o, 10, gamma=0.5)),
        (step_decay((7, 31, 31), 0.1), lambda o: lr_scheduler.MultiStepLR(o, [7, 31, 31], gamma=0.1)),
        (cosine(NUM_STEPS), lambda o: lr_scheduler.CosineAnnealingLR(o, NUM_STEPS)),
        (cosine(NUM_STEPS, 0.2), lambda o: lr_scheduler.CosineAnnealingLR(o, NUM_STEPS, eta_min=0.2)),
        (linear(30, 0.1), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=30)),
        (warmup(8, constant(), 0.25), lambda o: lr_scheduler.LinearLR(o, 0.25, total_iters=8)),
        (warmup(8, cosine(NUM_STEPS - 8), 0.25), sequential),
    ],
)
def test_equals_torch(schedule, make_scheduler) -> None:
    np.testing.assert_allclose(values(schedule, NUM_STEPS), by_torch(make_scheduler), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", [cosine(10, 0.3), linear(10, 0.3)])
def test_the_end_is_held(schedule) -> None:
    assert schedule(10) == schedule(25) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "step:0.5,0.75:0.1", "warmup:0.1+cosine"])
def test_frozen_comparable_picklable(name: str) -> None:
    schedule = parse(name, NUM_STEPS)
    assert pickle.loads(pickle.dumps(schedule)) == schedule == parse(name, NUM_STEPS)
    with pytest.raises(AttributeError):
        schedule.num_steps = 3


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("constant", constant()),
        ("cosine", cosine(NUM_STEPS)),
        ("linear", linear(NUM_STEPS)),
        ("step:0.5,0.75:0.1", step_decay((20, 30), 0.1)),
        ("warmup:0.05+cosine", warmup(2, cosine(NUM_STEPS - 2))),
        # milestones stay fractions of the whole run
        ("warmup:0.1+step:0.5:0.1", warmup(4, step_decay((16,), 0.1))),
    ],
)
def test_parse(spec: str, expected) -> None:
    assert parse(spec, NUM_STEPS) == expected


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5])
@pytest.mark.parametrize("spec", ["cosine", "step:0.5,0.75:0.1", "warmup:0.05+step:0.5,0.75:0.1"])
def test_very_short_runs(spec: str, num_steps: int) -> None:
    assert len(values(parse(spec, num_steps), num_steps)) == num_steps


def test_any_callable_is_a_schedule() -> None:
    assert values(lambda k: 1 / (1 + k), 3).tolist() == [1.0, 1 / 2, 1 / 3]
    assert values(warmup(2, lambda k: 2.0 - k), 3).tolist() == [0.0, 1.0, 2.0]


VALID = "valid are constant, cosine, linear, step:0.5,0.75:0.1, or one of them after a warm-up, warmup:0.05+cosine"


@pytest.mark.parametrize(
    "spec",
    ["", "cosin", "cosine:0.1", "step:0.5", "step:a:0.1", "warm:0.1+cosine", "warmup:0.1", "warmup:0.1+"],
)
def test_unknown_spec(spec: str) -> None:
    with pytest.raises(InputError) as error:
        parse(spec, NUM_STEPS)
    assert str(error.value).endswith(VALID)
    assert str(error.value).startswith("unknown schedule '")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: parse("step:1.5:0.1", NUM_STEPS),
            "schedule 'step:1.5:0.1' has the position 1.5; required is a fraction of the run between 0 and 1,"
            " such as 0.5",
        ),
        (
            lambda: parse("warmup:0.5+step:0.25:0.1", NUM_STEPS),
            "schedule 'warmup:0.5+step:0.25:0.1' has a milestone inside its warm-up; required are milestones "
            "after it: shorten the warm-up or move the milestone",
        ),
        (lambda: parse("cosine", 0), "num_steps is 0; required is a whole number ≥ 1"),
        (lambda: cosine(0), "num_steps is 0; required is a whole number ≥ 1"),
        (lambda: warmup(0, constant()), "num_warmup is 0; required is a whole number ≥ 1"),
        (
            lambda: step_decay((5, 3), 0.1),
            "milestones are [5, 3]; required are step indices ≥ 1 in order: sort them",
        ),
        (lambda: step_decay((5,), -1), "gamma is -1; required is a finite factor ≥ 0, such as 0.1"),
        (
            lambda: linear(5, final=float("nan")),
            "final is nan; required is a finite factor ≥ 0, such as 0.1",
        ),
        (lambda: warmup(5, constant(), -0.5), "start is -0.5; required is a finite factor ≥ 0, such as 0.1"),
        (
            lambda: values(lambda k: 1.0 - k, 4),
            "the schedule is -1 at step 2; required is a finite factor ≥ 0 at every step: correct the schedule",
        ),
    ],
)
def test_refusals(make, message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
