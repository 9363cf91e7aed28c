"""with_momentum: the inverse of drop_momentum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, OneCycleLR, StepLR

from lightball.errors import InputError
from lightball.optim import SGD
from lightball.optim.conversion import drop_momentum, with_momentum
from lightball.optim.conversion.loading import CONVERTED
from lightball.optim.conversion.rule import GroupRule
from lightball.optim.conversion.scaling import scaled

BOTH = pytest.mark.parametrize("kind", [torch.optim.SGD, SGD])


def optimizer_of(kind: Any = torch.optim.SGD, **options: Any) -> Any:
    return kind([nn.Parameter(torch.ones(2, dtype=torch.float64))], **{"lr": 0.1, **options})


def step(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()


@BOTH
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.5}])
@pytest.mark.parametrize("momentum", [0.7, 0.95])
@pytest.mark.parametrize("lr", [0.3, 0.0125])
def test_right_after_dropping_it_gives_the_numbers_back(kind: Any, options: dict, momentum: float, lr: float) -> None:
    """To the last bit, for numbers that a person types."""
    optimizer = optimizer_of(kind, lr=lr, momentum=momentum, **options)
    scheduler = CosineAnnealingLR(optimizer, 10, eta_min=lr / 8)
    before = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    defaults, state = dict(optimizer.defaults), dict(scheduler.state_dict())
    drop_momentum(optimizer, scheduler)
    assert optimizer.param_groups[0]["momentum"] == 0
    done = with_momentum(optimizer, momentum, scheduler, **options)
    left_out = ("params", CONVERTED)
    assert [{k: v for k, v in group.items() if k not in left_out} for group in optimizer.param_groups] == before
    assert {k: v for k, v in optimizer.defaults.items() if k != CONVERTED} == defaults
    assert {key: scheduler.state_dict()[key] for key in state} == state
    assert done.scheduler is scheduler


def test_factors_there_and_back_give_what_a_person_types() -> None:
    for lr in (0.1, 0.3, 0.0125, 3e-4, 0.05, 1e-5):
        for momentum in (0.9, 0.7, 0.5, 0.95, 0.99, 0.999):
            total = GroupRule(momentum).total
            assert scaled(scaled(lr, total), 1 / total) == lr


@BOTH
def test_a_steady_gradient_is_followed_at_the_same_pace(kind: Any) -> None:
    optimizer = optimizer_of(kind)
    scheduler = StepLR(optimizer, 1000)
    done = with_momentum(optimizer, 0.8, scheduler, nesterov=True)
    assert done.factors == pytest.approx([0.2])
    p = optimizer.param_groups[0]["params"][0]
    for _ in range(200):
        step(optimizer)
        scheduler.step()
    before = p.detach().clone()
    step(optimizer)
    torch.testing.assert_close(before - p, torch.full_like(p, 0.1))
    assert "group 0: lr 0.1 → 0.02, momentum 0 → 0.8, Nesterov off → on" in str(done)
    assert "buffers start empty: about the first 5 steps, 1/(1 − momentum), are shorter" in str(done)


def test_canonical_rate_stays() -> None:
    optimizer = optimizer_of(SGD, convention="canonical")
    with_momentum(optimizer, 0.9)
    assert optimizer.param_groups[0]["lr"] == 0.1
    step(optimizer)
    torch.testing.assert_close(optimizer.param_groups[0]["params"][0].detach(), torch.full((2,), 0.99).double())
    with pytest.raises(InputError, match=r"the canonical convention, which has no such choice"):
        with_momentum(optimizer_of(SGD, convention="canonical"), 0.9, nesterov=True)


def test_groups_may_differ() -> None:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))]} for _ in range(3)], lr=0.1)
    with_momentum(optimizer, [0.9, 0.0, 0.5], nesterov=True)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1, 0.05])
    assert [group["nesterov"] for group in optimizer.param_groups] == [True, False, True]
    step(optimizer)
    drop_momentum(optimizer)
    with_momentum(optimizer, [0.9, 0.0, 0.5], dampening=0.5)
    assert [group["dampening"] for group in optimizer.param_groups] == [0.5, 0, 0.5]
    with pytest.raises(InputError, match=r"momentum has 2 numbers for 3 groups"):
        with_momentum(optimizer, [0.9, 0.5])


def test_what_cannot_work_is_refused_and_changes_nothing() -> None:
    optimizer = optimizer_of(momentum=0.5)
    with pytest.raises(InputError, match=r"group 0 has momentum 0\.5 already; required is none: drop_momentum first"):
        with_momentum(optimizer, 0.9)
    optimizer = optimizer_of()
    with pytest.raises(InputError, match=r"momentum is 1; required is 0 ≤ momentum < 1"):
        with_momentum(optimizer, 1.0)
    with pytest.raises(InputError, match=r"nesterov got momentum 0\.9 and dampening 0\.5"):
        with_momentum(optimizer, 0.9, dampening=0.5, nesterov=True)
    with pytest.raises(InputError, match=r"the optimizer is of class Adam, .*can neither be dropped nor given"):
        with_momentum(torch.optim.Adam([nn.Parameter(torch.ones(1))]), 0.9)
    CosineAnnealingLR(optimizer, 10)
    with pytest.raises(InputError, match=r"would write its old rates"):
        with_momentum(optimizer, 0.9)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_scheduler_that_writes_momentum_is_refused() -> None:
    for make in (lambda o: OneCycleLR(o, 0.1, 10), lambda o: CyclicLR(o, 0.01, 0.1)):
        optimizer = optimizer_of()
        scheduler = make(optimizer)
        optimizer.param_groups[0]["momentum"] = 0.0
        with pytest.raises(InputError, match=r"cannot be carried over: it moves momentum as well as the rate"):
            with_momentum(optimizer, 0.9, scheduler)


def test_momentum_is_a_number_or_one_for_each_group() -> None:
    for wrong in ("0.9", ["0.9"], None):
        with pytest.raises(InputError, match=r"momentum is .*; required is a number, 0 ≤ momentum < 1, or a list"):
            with_momentum(optimizer_of(), wrong)  # type: ignore[arg-type]


def test_a_schedule_of_momentum_that_is_0_now_is_refused() -> None:
    optimizer = optimizer_of(SGD, momentum=lambda k: 0.0 if k < 10 else 0.9)
    with pytest.raises(InputError, match=r"group 0 has momentum 0 already, by a schedule; required is none"):
        with_momentum(optimizer, 0.9)


def test_a_replaced_step_is_refused() -> None:
    optimizer = optimizer_of()
    optimizer.step = lambda: None
    with pytest.raises(InputError, match=r"the step of this SGD was replaced on the object"):
        with_momentum(optimizer, 0.9)
