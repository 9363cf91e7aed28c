"""Checkpoints of before are converted when they are loaded after drop_momentum; those of after load as they are."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, SequentialLR, StepLR

from lightball.errors import InputError
from lightball.optim import SGD
from lightball.optim.conversion import drop_momentum, with_momentum

BOTH = pytest.mark.parametrize("kind", [torch.optim.SGD, SGD])


def made(kind: Any = torch.optim.SGD, make: Any = None, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    groups = [{"params": [nn.Parameter(torch.randn(4))]}, {"params": [nn.Parameter(torch.randn(2))], "lr": 0.002}]
    optimizer = kind(groups, **{"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, **options})
    return optimizer, (make or sequential)(optimizer)


def sequential(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return SequentialLR(optimizer, [StepLR(optimizer, 3), CosineAnnealingLR(optimizer, 20, eta_min=1e-3)], [8])


def train(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, num_steps: int = 10) -> list[list[float]]:
    rates = []
    for number in range(num_steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.full_like(p, 0.1 * number)
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def saved(optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> Any:
    """Through a file and torch's safe loading."""
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def weights(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def set_weights(optimizer: torch.optim.Optimizer, values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip((p for g in optimizer.param_groups for p in g["params"]), values, strict=True):
            p.copy_(value)


@BOTH
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first"])
def test_an_older_state_does_not_bring_momentum_back(kind: Any, order: str) -> None:
    """Back to step 5 of a run converted at step 9: all goes on as if converted at step 5."""
    optimizer, scheduler = made(kind)
    train(optimizer, scheduler, 5)
    old, x = saved(optimizer, scheduler), weights(optimizer)
    reference, reference_scheduler = made(kind)
    train(reference, reference_scheduler, 5)
    drop_momentum(reference, reference_scheduler)
    expected = train(reference, reference_scheduler, 15)

    train(optimizer, scheduler, 4)
    drop_momentum(optimizer, scheduler)
    untouched = copy.deepcopy(old)
    parts = [(optimizer, old[0]), (scheduler, old[1])]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for part, state in parts if order == "optimizer first" else parts[::-1]:
            part.load_state_dict(state)
    said = " ".join(str(each.message) for each in caught)
    assert "in group 0 momentum 0.9 was ignored and is 0, lr 0.001 became 0.01" in said
    assert "2 momentum buffers (24 bytes) were ignored" in said
    assert "SequentialLR: rates × 10, 10" in said
    assert str(old) == str(untouched)
    assert len(caught) == 2
    assert not optimizer.state
    set_weights(optimizer, x)
    assert train(optimizer, scheduler, 15) == [pytest.approx(each, rel=1e-12) for each in expected]
    assert optimizer.param_groups[0]["momentum"] == 0
    for a, b in zip(weights(optimizer), weights(reference), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


@BOTH
def test_a_state_of_after_loads_as_it_is_anywhere(kind: Any) -> None:
    """In the run itself, in one converted anew, and in a script that still says momentum=0.9."""
    optimizer, scheduler = made(kind)
    train(optimizer, scheduler, 5)
    drop_momentum(optimizer, scheduler)
    train(optimizer, scheduler, 2)
    state, x = saved(optimizer, scheduler), weights(optimizer)
    expected, end = train(optimizer, scheduler), weights(optimizer)
    converted = made(kind)
    drop_momentum(*converted)
    for fresh in ((optimizer, scheduler), converted, made(kind), made(torch.optim.SGD)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fresh[0].load_state_dict(copy.deepcopy(state[0]))
            fresh[1].load_state_dict(copy.deepcopy(state[1]))
        set_weights(fresh[0], x)
        assert train(*fresh) == expected
        assert all(torch.equal(a, b) for a, b in zip(weights(fresh[0]), end, strict=True))
        assert all("momentum_buffer" not in each for each in fresh[0].state.values())


@BOTH
def test_in_a_fresh_process_the_old_state_is_loaded_first_and_then_converted(kind: Any) -> None:
    optimizer, scheduler = made(kind)
    train(optimizer, scheduler, 5)
    old = saved(optimizer, scheduler)
    drop_momentum(optimizer, scheduler)
    fresh = made(kind)
    fresh[0].load_state_dict(old[0])
    fresh[1].load_state_dict(old[1])
    done = drop_momentum(*fresh)
    assert done.bytes_freed == 24
    assert train(*fresh) == train(optimizer, scheduler)


@BOTH
def test_left_over_buffers_of_a_naive_switch_are_ignored(kind: Any) -> None:
    optimizer, scheduler = made(kind, lambda o: StepLR(o, 5))
    train(optimizer, scheduler, 2)
    naive = saved(optimizer, scheduler)[0]
    for group in naive["param_groups"]:
        group["momentum"] = 0.0
    drop_momentum(optimizer, scheduler)
    with pytest.warns(UserWarning, match=r"2 momentum buffers \(24 bytes\) were ignored"):
        optimizer.load_state_dict(naive)
    assert not optimizer.state


def test_rates_written_out_load_only_into_such() -> None:
    def make(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return OneCycleLR(optimizer, [0.1, 0.2], 30)

    optimizer, scheduler = made(make=make)
    train(optimizer, scheduler, 5)
    old = saved(optimizer, scheduler)
    train(optimizer, scheduler, 5)
    drop_momentum(optimizer, scheduler)
    train(optimizer, scheduler, 2)
    new = saved(optimizer, scheduler)
    expected = train(optimizer, scheduler)
    with pytest.raises(InputError, match=r"the state is of step 5, before the scheduler's rates were written out"):
        scheduler.load_state_dict(old[1])
    unaware = made(make=make)
    unaware[0].load_state_dict(copy.deepcopy(new[0]))
    unaware[1].load_state_dict(copy.deepcopy(new[1]))
    with pytest.raises(KeyError, match="max_lr"):
        train(*unaware)
    fresh = made(make=make)
    assert "note: checkpoints from now on load only after drop_momentum on the fresh" in str(drop_momentum(*fresh))
    fresh[0].load_state_dict(new[0])
    fresh[1].load_state_dict(new[1])
    assert train(*fresh) == expected
    other = made()
    drop_momentum(*other)
    with pytest.raises(InputError, match=r"rates that were written out, the scheduler is a SequentialLR"):
        other[1].load_state_dict(new[1])


@BOTH
def test_states_without_momentum_are_converted_after_with_momentum(kind: Any) -> None:
    """Both ways: the state takes the momentum that the run has now."""
    optimizer, scheduler = made(kind, momentum=0.0)
    train(optimizer, scheduler, 5)
    old = saved(optimizer, scheduler)
    with_momentum(optimizer, 0.9, scheduler)
    train(optimizer, scheduler, 2)
    with pytest.warns(UserWarning, match=r"in group 1 momentum 0 was ignored and is 0\.9, lr 0\.0002 became 2e-05"):
        optimizer.load_state_dict(old[0])
    with pytest.warns(UserWarning, match=r"rates × 0\.1"):
        scheduler.load_state_dict(old[1])
    reference = made(kind, momentum=0.0)
    train(*reference, 5)
    with_momentum(*reference[:1], 0.9, reference[1])
    assert train(optimizer, scheduler) == [pytest.approx(each, rel=1e-12) for each in train(*reference)]


def test_after_dropping_and_giving_back_the_states_of_the_run_load_as_they_are() -> None:
    optimizer, scheduler = made()
    train(optimizer, scheduler, 5)
    old, expected = saved(optimizer, scheduler), train(optimizer, scheduler)
    drop_momentum(optimizer, scheduler)
    with_momentum(optimizer, 0.9, scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.load_state_dict(old[0])
        scheduler.load_state_dict(old[1])
    assert train(optimizer, scheduler) == expected


def test_states_of_different_conversions_load_one_after_another() -> None:
    optimizer, scheduler = made()
    train(optimizer, scheduler, 5)
    old = saved(optimizer, scheduler)
    drop_momentum(optimizer, scheduler)
    dropped = saved(optimizer, scheduler)
    with_momentum(optimizer, 0.9, scheduler)
    with pytest.warns(UserWarning, match=r"rates × 0\.1, 0\.1"):
        scheduler.load_state_dict(dropped[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.load_state_dict(old[0])
        scheduler.load_state_dict(old[1])
    reference = made()
    train(*reference, 5)
    assert train(optimizer, scheduler) == train(*reference)


@BOTH
def test_a_copy_is_protected_after_another_call(kind: Any) -> None:
    optimizer, scheduler = made(kind)
    train(optimizer, scheduler, 5)
    old = saved(optimizer, scheduler)
    drop_momentum(optimizer, scheduler)
    twin, twin_scheduler = copy.deepcopy((optimizer, scheduler))
    assert drop_momentum(twin, twin_scheduler).factors == (1.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # copying an optimizer forgets that its steps are watched
        assert train(twin, twin_scheduler) == train(optimizer, scheduler)
    with pytest.warns(UserWarning, match="momentum 0.9 was ignored"):
        twin.load_state_dict(old[0])
    with pytest.warns(UserWarning, match="rates × 10, 10"):
        twin_scheduler.load_state_dict(old[1])
    assert twin.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_state_with_other_groups_is_torchs_to_refuse() -> None:
    optimizer, scheduler = made()
    drop_momentum(optimizer, scheduler)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9).state_dict())


def with_cycled_momentum(kind: Any) -> tuple[Any, Any]:
    """Momentum given, and moved from then on by a scheduler made afterwards."""
    optimizer, _ = made(kind, lambda o: None, momentum=0.0)
    with_momentum(optimizer, 0.9)
    return optimizer, OneCycleLR(optimizer, [0.1, 0.2], 60)


@BOTH
def test_a_state_of_a_converted_run_whose_momentum_moves_loads_as_it_is(kind: Any) -> None:
    optimizer, scheduler = with_cycled_momentum(kind)
    train(optimizer, scheduler, 10)
    state, x = saved(optimizer, scheduler), weights(optimizer)
    expected, end = train(optimizer, scheduler), weights(optimizer)
    for again in ((optimizer, scheduler), with_cycled_momentum(kind), with_cycled_momentum(torch.optim.SGD)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again[0].load_state_dict(copy.deepcopy(state[0]))
            again[1].load_state_dict(copy.deepcopy(state[1]))
        set_weights(again[0], x)
        assert train(*again) == expected
        assert all(torch.equal(a, b) for a, b in zip(weights(again[0]), end, strict=True))
    plain = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(n))]} for n in (4, 2)], lr=1.0)
    plain.load_state_dict(state[0])
    assert [g["momentum"] for g in plain.param_groups] == [g["momentum"] for g in state[0]["param_groups"]]
    assert len(plain.state) == 2


def test_a_state_saved_while_a_scheduler_had_momentum_at_0_keeps_its_buffers() -> None:
    optimizer, scheduler = with_cycled_momentum(torch.optim.SGD)
    train(optimizer, scheduler, 3)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["momentum"] = 0.0
    optimizer.load_state_dict(state)
    assert len(optimizer.state) == 2


@BOTH
def test_an_older_state_takes_the_momentum_that_was_given_not_what_a_scheduler_made_of_it(kind: Any) -> None:
    optimizer, _ = made(kind, lambda o: None, momentum=0.0)
    old = copy.deepcopy(optimizer.state_dict())
    with_momentum(optimizer, 0.9)
    train(optimizer, OneCycleLR(optimizer, [0.1, 0.2], 60), 10)
    assert optimizer.param_groups[0]["momentum"] < 0.9
    with pytest.warns(UserWarning, match=r"in group 0 momentum 0 was ignored and is 0\.9, lr 0\.01 became 0\.001"):
        optimizer.load_state_dict(old)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]
    assert [group["lr"] for group in optimizer.param_groups] == [0.001, pytest.approx(0.0002)]


def test_a_group_added_after_a_conversion_is_of_it() -> None:
    optimizer, scheduler = made()
    drop_momentum(optimizer, scheduler)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.load_state_dict(saved(optimizer, scheduler)[0])


@BOTH
def test_after_an_averaged_drop_the_optimizer_refuses_an_older_state(kind: Any) -> None:
    optimizer, scheduler = made(kind, lambda o: OneCycleLR(o, [0.1, 0.2], 60))
    train(optimizer, scheduler, 5)
    old = saved(optimizer, scheduler)
    drop_momentum(optimizer, scheduler)
    new, rates = saved(optimizer, scheduler), [group["lr"] for group in optimizer.param_groups]
    with pytest.raises(InputError, match=r"the state is older than the conversion that wrote the scheduler's rates"):
        optimizer.load_state_dict(old[0])
    assert [group["lr"] for group in optimizer.param_groups] == rates
    other = made(kind)
    drop_momentum(*other)
    with pytest.raises(InputError, match=r"the state is newer than the conversion"):
        other[0].load_state_dict(new[0])


def test_a_state_in_torchs_convention_is_matched_in_the_canonical_one() -> None:
    old = saved(*made())[0]
    optimizer, scheduler = made(SGD, convention="canonical")
    drop_momentum(optimizer, scheduler)
    with pytest.warns(UserWarning, match=r"in group 0 momentum 0\.9 was ignored and is 0, lr 0\.01 became 0\.1"):
        optimizer.load_state_dict(old)
    assert optimizer.param_groups[0]["convention"] == "canonical"
    optimizer, scheduler = made(SGD, convention="canonical")
    train(optimizer, scheduler, 3)
    state, expected = saved(optimizer, scheduler), weights(optimizer)
    drop_momentum(optimizer, scheduler)
    with_momentum(optimizer, 0.9, scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.load_state_dict(state[0])
    assert len(optimizer.state) == 2
    assert len(expected) == 2


def test_a_marked_optimizer_still_compiles() -> None:
    optimizer, scheduler = made()
    drop_momentum(optimizer, scheduler)
    expected = [x - lr * (1 + 0.1 * x) for x, lr in zip(weights(optimizer), (0.1, 0.02), strict=True)]
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    torch.compile(optimizer.step, backend="eager")()
    for x, y in zip(weights(optimizer), expected, strict=True):
        torch.testing.assert_close(x, y)
