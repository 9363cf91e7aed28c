"""What drop_momentum does to an optimizer: rates, buffers, pending displacement, and the traps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim import SGD
from lightball.optim.conversion import drop_momentum
from lightball.rules import Setting, convert

BOTH = pytest.mark.parametrize("kind", [torch.optim.SGD, SGD])


def parameter(value: float = 1.0, size: int = 3) -> nn.Parameter:
    return nn.Parameter(torch.full((size,), value, dtype=torch.float64))


def step(optimizer: torch.optim.Optimizer, gradient: float, times: int = 1) -> None:
    for _ in range(times):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.full_like(p, gradient)
        optimizer.step()


@settings(max_examples=40, deadline=None)
@given(
    lr=st.floats(1e-4, 1),
    momentum=st.floats(0.05, 0.95),
    dampening=st.sampled_from([0.0, 0.3, 0.9]),
    nesterov=st.booleans(),
    kind=st.sampled_from([torch.optim.SGD, SGD]),
)
def test_rate_and_pending_way_are_those_of_the_rule(
    lr: float, momentum: float, dampening: float, nesterov: bool, kind: Any
) -> None:
    """Rate: rules.convert. Way: what steps without gradient would still have moved, to their end."""
    dampening = 0.0 if nesterov else dampening
    kept, live = parameter(), parameter()
    optimizers = [
        each([p], lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov)
        for each, p in ((torch.optim.SGD, kept), (kind, live))
    ]
    for optimizer in optimizers:
        step(optimizer, 0.7, times=4)
    done = drop_momentum(optimizers[1], pending="apply")
    matched = convert(Setting("torch", lr, momentum, dampening, nesterov), "sgd").setting
    assert optimizers[1].param_groups[0]["lr"] == pytest.approx(matched.lr, rel=1e-14)
    step(optimizers[0], 0.0, times=800)
    torch.testing.assert_close(live, kept, rtol=1e-10, atol=1e-12)
    assert done.bytes_freed == 3 * 8
    assert not optimizers[1].state


def test_canonical_convention_keeps_its_rate() -> None:
    kept, live = parameter(), parameter()
    optimizers = [SGD([p], lr=0.1, momentum=0.8, convention="canonical") for p in (kept, live)]
    for optimizer in optimizers:
        step(optimizer, 0.7, times=4)
    done = drop_momentum(optimizers[1], pending="apply")
    assert optimizers[1].param_groups[0]["lr"] == 0.1
    assert done.factors == (1.0,)
    step(optimizers[0], 0.0, times=500)
    torch.testing.assert_close(live, kept, rtol=1e-12, atol=0)
    before = live.detach().clone()
    step(optimizers[1], 1.0)
    torch.testing.assert_close(before - live, torch.full_like(live, 0.1))


@BOTH
def test_a_steady_gradient_is_followed_at_the_same_pace(kind: Any) -> None:
    """By default the buffer's way is dropped, as the new rate counts it: constant gradients show no jump."""
    kept, live = parameter(), parameter()
    optimizers = [kind([p], lr=0.01, momentum=0.9) for p in (kept, live)]
    for optimizer in optimizers:
        step(optimizer, 1.0, times=400)
    drop_momentum(optimizers[1])
    for optimizer in optimizers:
        step(optimizer, 1.0, times=30)
    torch.testing.assert_close(live, kept, rtol=1e-12, atol=0)


@BOTH
def test_weight_decay_is_the_same_in_steady_state(kind: Any) -> None:
    """Without gradient, weights shrink per step as before, to second order of lr × weight_decay."""
    kept, live = parameter(), parameter()
    optimizers = [kind([p], lr=1e-5, momentum=0.9, weight_decay=0.1) for p in (kept, live)]
    for optimizer in optimizers:
        step(optimizer, 0.0, times=300)
    drop_momentum(optimizers[1])
    assert optimizers[1].param_groups[0]["weight_decay"] == 0.1
    shrinkage = []
    for optimizer, p in zip(optimizers, (kept, live), strict=True):
        before = p[0].item()
        step(optimizer, 0.0, times=100)
        shrinkage.append(1 - p[0].item() / before)
    assert shrinkage[1] == pytest.approx(shrinkage[0], rel=1e-4)


@BOTH
def test_groups_keep_their_own_numbers_and_flags(kind: Any) -> None:
    groups = [
        {"params": [parameter()], "momentum": 0.9, "lr": 0.1},
        {"params": [parameter()], "momentum": 0.5, "lr": torch.tensor(0.2), "weight_decay": 0.3},
        {"params": [parameter()], "momentum": 0.75, "dampening": 0.5},
        {"params": [parameter()]},
    ]
    optimizer = kind(groups, lr=0.4, maximize=True, fused=True)
    drop_momentum(optimizer, pending="drop")
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([1.0, 0.4, 0.8, 0.4])
    assert optimizer.param_groups[0]["lr"] == 1.0  # not 1.0000000000000002
    assert isinstance(optimizer.param_groups[1]["lr"], Tensor)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["dampening"], group["nesterov"]) == (0, 0, False)
        assert (group["maximize"], group["fused"]) == (True, True)
    assert optimizer.param_groups[1]["weight_decay"] == 0.3


@BOTH
def test_steps_afterwards_are_those_of_plain_sgd(kind: Any) -> None:
    p, plain = parameter(), parameter()
    optimizer = kind([p], lr=0.01, momentum=0.9, nesterov=True)
    step(optimizer, 0.3, times=3)
    with torch.no_grad():
        plain.copy_(p)
    drop_momentum(optimizer, pending="drop")
    reference = torch.optim.SGD([plain], lr=0.1)
    for each in (optimizer, reference):
        step(each, 0.2, times=3)
    assert torch.equal(p, plain)
    assert not any("momentum_buffer" in state for state in optimizer.state.values())


@BOTH
def test_parameters_frozen_and_groups_added_later_have_no_momentum(kind: Any) -> None:
    early, late, added = parameter(), parameter(), parameter()
    optimizer = kind([early, late], lr=0.01, momentum=0.9)
    late.requires_grad_(False)
    early.grad = torch.ones_like(early)
    optimizer.step()
    assert drop_momentum(optimizer).bytes_freed == 3 * 8
    late.requires_grad_(True)
    optimizer.add_param_group({"params": [added]})
    assert optimizer.param_groups[1]["momentum"] == 0
    before = [p.detach().clone() for p in (late, added)]
    step(optimizer, 1.0, times=2)
    for p, was in zip((late, added), before, strict=True):
        torch.testing.assert_close(was - p, torch.full_like(p, 0.2))
    assert not any("momentum_buffer" in state for state in optimizer.state.values())


@BOTH
@pytest.mark.parametrize("fused", [False, True])
def test_a_first_step_that_overflows_leaves_nothing_behind(kind: Any, fused: bool) -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = kind([p], lr=0.01, momentum=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((p * torch.inf).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(p, torch.ones(3))
    drop_momentum(optimizer)
    assert torch.equal(p, torch.ones(3))
    optimizer.zero_grad()
    scaler.scale(p.sum()).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.9))
    assert not any("momentum_buffer" in state for state in optimizer.state.values())


@BOTH
def test_a_buffer_that_is_not_finite_is_not_applied(kind: Any) -> None:
    p = parameter()
    optimizer = kind([p], lr=0.01, momentum=0.9)
    step(optimizer, 1.0)
    before = p.detach().clone()
    optimizer.state[p]["momentum_buffer"][0] = torch.nan
    done = drop_momentum(optimizer, pending="apply")
    assert torch.equal(p, before)
    assert "1 buffers are not finite and were dropped, not applied" in str(done)


@BOTH
def test_a_closure_is_called_as_before(kind: Any) -> None:
    p = parameter()
    optimizer = kind([p], lr=0.01, momentum=0.9)
    drop_momentum(optimizer)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(3.0)
    torch.testing.assert_close(p.detach(), torch.full_like(p, 0.8))


def test_momentum_in_backward_is_dropped_too() -> None:
    p = parameter()
    optimizer = SGD([p], lr=0.01, momentum=0.9, in_backward=True)
    p.sum().backward()
    optimizer.step()
    drop_momentum(optimizer)
    before = p.detach().clone()
    p.sum().backward()
    optimizer.step()
    torch.testing.assert_close(before - p, torch.full_like(p, 0.1))
    assert not any("momentum_buffer" in state for state in optimizer.state.values())


def falling(k: int) -> float:
    return 0.9 if k < 10 else 0.5


def test_a_schedule_of_momentum_is_averaged_over_the_rest() -> None:
    def displacement(drops: bool) -> float:
        p = parameter()
        optimizer = SGD([p], lr=0.01, momentum=falling)
        step(optimizer, 1.0, times=5)
        if drops:
            with pytest.raises(InputError, match=r"momentum follows a schedule; required is num_steps ≥ 1"):
                drop_momentum(optimizer)
            done = drop_momentum(optimizer, num_steps=20)
            assert done.factors is None
            assert done.scheduler is not None
        for _ in range(20):
            step(optimizer, 1.0)
            if drops:
                done.scheduler.step()
        assert not drops or optimizer.param_groups[0]["momentum"] == 0
        return p[0].item()

    assert displacement(drops=True) == pytest.approx(displacement(drops=False), rel=1e-12)


def test_the_summary_says_what_changed() -> None:
    p = parameter(size=1000)
    optimizer = torch.optim.SGD([p], lr=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    step(optimizer, 1.0)
    assert str(drop_momentum(optimizer, scheduler)).splitlines() == [
        "momentum dropped",
        "group 0: lr 0.01 → 0.1, momentum 0.9 → 0",
        "scheduler: StepLR, carried over",
        "freed: 8,000 bytes of momentum buffers",
    ]
    assert "note: no group had momentum" in str(drop_momentum(optimizer, scheduler))


class Clipping(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Renamed(torch.optim.SGD):
    """Leaves step alone."""


def test_other_optimizers_are_refused_by_name() -> None:
    for kind in (torch.optim.AdamW, torch.optim.LBFGS, Clipping):
        with pytest.raises(
            InputError, match=rf"the optimizer is a {kind.__name__}; required is torch\.optim\.SGD.*audit"
        ):
            drop_momentum(kind([parameter()]))
    assert drop_momentum(Renamed([parameter()], lr=0.1, momentum=0.9)).factors == pytest.approx([10])


class Around(torch.optim.Optimizer):
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


def test_a_wrapper_is_pointed_at_what_it_wraps() -> None:
    with pytest.raises(InputError, match=r"the optimizer is a Around around another one.*give its \.optimizer"):
        drop_momentum(Around(torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)))


def test_accelerates_wrappers_are_seen_through() -> None:
    accelerate = pytest.importorskip("accelerate")
    inner = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    try:
        scheduler = torch.optim.lr_scheduler.LambdaLR(inner, [lambda k: 1 / (1 + k)])
        wrapped, wrapped_scheduler = accelerate.Accelerator(cpu=True).prepare(inner, scheduler)
        with pytest.raises(InputError, match=r"would write its old rates"):
            drop_momentum(wrapped)
        assert drop_momentum(wrapped, wrapped_scheduler).scheduler is scheduler
        step(wrapped, 1.0)
        wrapped_scheduler.step()
        assert wrapped.param_groups[0]["lr"] == 0.5
        on_wrapper = torch.optim.lr_scheduler.LambdaLR(wrapped, [lambda k: 1 / (1 + k)])  # as Trainer makes it
        assert drop_momentum(wrapped, on_wrapper).scheduler is on_wrapper
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_pending_is_one_of_three() -> None:
    with pytest.raises(InputError, match=r"pending is 'keep'; required is 'match', 'apply'"):
        drop_momentum(torch.optim.SGD([parameter()], lr=0.1, momentum=0.9), pending="keep")  # type: ignore[arg-type]
