"""Momentum that the step has but the run has not: seen in the buffers, where it can be seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightball.optim.auditing import audit, audit_json, audit_text
from lightball.optim.auditing.auditor import UNSEEN
from lightball.optim.conversion import with_momentum
from lightball.optim.sgd import SGD


def used(steps: int = 2, dtype: torch.dtype = torch.float32) -> torch.optim.Optimizer:
    model = nn.Linear(5, 3).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)  # which keeps whether steps were taken
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 5, dtype=dtype)).sum().backward()
        optimizer.step()
    return optimizer


def test_a_live_buffer_and_one_that_is_still_to_come() -> None:
    for steps in (0, 2):
        (found,) = audit(used(steps))
        assert found.momentum_active is True
        assert found.state_bytes_per_parameter == 4
        assert len(found.notes) == 1


def test_buffers_that_the_loop_zeroes() -> None:
    optimizer = used()
    for state in optimizer.state.values():
        state["momentum_buffer"].zero_()
    (found,) = audit(optimizer)
    assert (found.momentum, found.momentum_active) == (0.9, False)
    assert found.notes[0].startswith("step has momentum, but its buffers are all zero now")
    lines = audit_text([found]).splitlines()
    assert "  momentum      0.9, not active" in lines  # and no word on how long it remembers
    assert lines[6].startswith("  note          step has momentum, but")
    assert lines[-2:] == ["", UNSEEN]


def test_buffers_that_the_loop_clears() -> None:
    for clear in (
        dict.clear,
        lambda state: state.pop("momentum_buffer"),
        lambda state: state.update(momentum_buffer=None),
    ):
        optimizer = used()
        del optimizer._opt_called  # type: ignore[attr-defined]
        for state in optimizer.state.values():
            clear(state)
        (found,) = audit(optimizer)
        assert (found.momentum, found.momentum_active) == (0.9, False)
        assert found.notes[0].startswith("step has momentum, but its buffers were taken out of the state")


BEGINS = "no parameter has a buffer, although steps were taken: momentum begins with the next gradient, or the state is"


def test_an_empty_state_shows_nothing() -> None:
    optimizer = used()
    optimizer.state.clear()
    (found,) = audit(optimizer)
    assert found.momentum_active is True
    assert found.notes[0].startswith(BEGINS)
    del optimizer._opt_called  # type: ignore[attr-defined]
    assert audit(optimizer)[0].notes == (UNSEEN,)


@pytest.mark.parametrize("rounding", [None, "nearest", "kahan", "stochastic"])
def test_momentum_that_was_just_given_is_active(rounding: Any) -> None:
    weight = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = SGD([weight], 0.1, rounding=rounding) if rounding else torch.optim.SGD([weight], 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    with_momentum(optimizer, 0.9, scheduler)
    (found,) = audit(optimizer)
    assert (found.momentum, found.momentum_active) == (pytest.approx(0.9), True)
    assert found.notes[0].startswith(BEGINS)


def test_a_group_whose_gradients_are_still_to_come() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(2, 2)
    groups = [{"params": first.parameters()}, {"params": second.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 10)
    first(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    trained, waiting = audit(optimizer)
    assert (trained.momentum_active, waiting.momentum_active) == (True, True)
    assert trained.notes == (UNSEEN,)
    assert waiting.notes[0].startswith(BEGINS)


def test_a_state_that_is_set_up_before_the_first_step_is_no_sign_of_steps() -> None:
    low = nn.Linear(5, 3).to(torch.bfloat16)
    (found,) = audit(SGD(low.parameters(), 0.1, 0.9, rounding="stochastic"))
    assert found.momentum_active is True


def test_momentum_that_follows_a_schedule_is_said() -> None:
    scheduled = "momentum follows a schedule; 0.5 is its value now"
    constant, moving = nn.Linear(5, 3), nn.Linear(5, 3)
    assert scheduled in audit(SGD(moving.parameters(), 0.1, lambda k: 0.5 + 0.01 * min(k, 10)))[0].notes
    assert scheduled not in audit(SGD(constant.parameters(), 0.1, 0.5))[0].notes
    for cycled in (True, False):
        optimizer = torch.optim.SGD(nn.Linear(5, 3).parameters(), 0.1, momentum=0.9)
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.5, total_steps=10, cycle_momentum=cycled, max_momentum=0.5, base_momentum=0.4
        )
        assert (scheduled in audit(optimizer)[0].notes) is cycled


def test_frozen_parameters_are_counted() -> None:
    model = nn.Linear(5, 3)
    model.bias.requires_grad_(False)
    (found,) = audit(torch.optim.SGD(model.parameters(), 0.1))
    assert found.notes[0] == "1 of its 2 parameters are frozen"


def test_text_fits_a_terminal_and_json_has_the_fields() -> None:
    model = nn.Linear(5, 3)
    groups = [{"params": [model.weight], "weight_decay": 0.01}, {"params": [model.bias], "dampening": 0.5}]
    found = audit(torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    lines = audit_text(found).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[:4] == [
        "group 0 of torch.optim.SGD",
        "  family        SGD with momentum",
        "  effective lr  1, from lr 0.1",
        "  momentum      0.9, active; it remembers 10 steps",
    ]
    assert not any("  note" in line for line in lines)
    assert lines[-1] == UNSEEN
    assert str(found[0]) == audit_text(found[:1])
    assert "  first step    counts 2 times as much as every other" in lines
    first = audit_json(found)[0]
    wanted = {
        "family": "sgdm",
        "effective_lr": 1.0,
        "momentum": 0.9,
        "dampening": 0.0,
        "nesterov": False,
        "weight_decay": 0.01,
        "decoupled": False,
        "momentum_active": True,
        "state_bytes_per_parameter": 4.0,
    }
    assert {name: first[name] for name in wanted} == pytest.approx(wanted)


def test_momentum_of_one_has_no_finite_rate() -> None:
    found = audit(torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1, momentum=1.0))
    assert found[0].effective_lr == float("inf")
    assert audit_json(found)[0]["effective_lr"] is None
    assert "inf" in audit_text(found)
