"""What drop_momentum does to an optimizer: rates, buffers, pending displacement, and the traps."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim import SGD, SVAG
from lightball.optim.conversion import drop_momentum, with_momentum
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
    if fused and kind is torch.optim.SGD:
        optimizer.state[p]["momentum_buffer"].fill_(3.0)  # torch has made it, and never written to it
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
            with pytest.warns(UserWarning, match=r"step the scheduler that drop_momentum returns"):
                done = drop_momentum(optimizer, num_steps=20)
            assert done.factors is None
            assert done.scheduler is not None
            assert "new, a WrittenOutLR: call dropped.scheduler.step() after each optimizer.step()" in str(done)
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
    done = drop_momentum(optimizer, scheduler, num_steps=9)
    assert str(done).splitlines() == [
        "momentum dropped",
        "group 0: lr 0.01 → 0.1, momentum 0.9 → 0",
        "scheduler: StepLR, carried over",
        "pending: dropped",
        "freed: 8,000 bytes of momentum buffers",
        "note: num_steps was not needed: the rates of every later step take the factor",
    ]
    assert done.factors == (10.0,)
    again = str(drop_momentum(optimizer, scheduler))
    assert again.startswith("nothing to drop")
    assert "pending: none" in again
    assert "note: no group had momentum" in again


@pytest.mark.parametrize("pending", ["apply", "drop"])
def test_the_summary_says_what_became_of_the_rest(pending: Any) -> None:
    for options, said in (
        ({"dampening": 0.5}, "lr 0.01 → 0.05, momentum 0.9 → 0, dampening 0.5 → 0"),
        ({"nesterov": True}, "lr 0.01 → 0.1, momentum 0.9 → 0, Nesterov on → off"),
    ):
        optimizer = torch.optim.SGD([parameter()], lr=0.01, momentum=0.9, **options)  # type: ignore[arg-type]
        step(optimizer, 1.0)
        shown = str(drop_momentum(optimizer, pending=pending)).splitlines()
        assert f"group 0: {said}" in shown
        assert {"apply": "pending: weights moved by it", "drop": "pending: dropped"}[pending] in shown


class Clipping(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Renamed(torch.optim.SGD):
    """Leaves step alone."""


def test_other_optimizers_are_refused_by_name() -> None:
    for kind in (torch.optim.AdamW, torch.optim.LBFGS):
        with pytest.raises(InputError, match=rf"of class {kind.__name__}, whose steps have no match in SGD"):
            drop_momentum(kind([parameter()]))
    with pytest.raises(InputError, match=r"of class Clipping; required is torch\.optim\.SGD.*audit"):
        drop_momentum(Clipping([parameter()]))
    for wrong in (torch.nn.Linear(1, 1), [], {}):
        with pytest.raises(InputError, match=rf"of class {type(wrong).__name__}; required is torch\.optim\.SGD.*loop"):
            drop_momentum(wrong)  # type: ignore[arg-type]
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
        with pytest.raises(InputError, match=r"LambdaLR of this optimizer is there too"):
            drop_momentum(wrapped, on_wrapper)
        assert drop_momentum(wrapped, [on_wrapper, wrapped_scheduler]).schedulers == (on_wrapper, scheduler)
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_pending_is_one_of_three() -> None:
    with pytest.raises(InputError, match=r"pending is 'keep'; required is 'match', 'apply'"):
        drop_momentum(torch.optim.SGD([parameter()], lr=0.1, momentum=0.9), pending="keep")  # type: ignore[arg-type]


def test_accelerates_own_step_is_no_replacement() -> None:
    accelerate = pytest.importorskip("accelerate")
    try:
        wrapped = accelerate.Accelerator(cpu=True).prepare(torch.optim.SGD([parameter()], lr=0.1, momentum=0.9))
        step(wrapped, 1.0)
        wrapped.optimizer.step = wrapped.optimizer.step  # as it puts the step back after one with a GradScaler
        assert drop_momentum(wrapped).factors == pytest.approx([10])
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_lightnings_wrapper_is_seen_through() -> None:
    optimizers = pytest.importorskip("lightning.pytorch.core.optimizer")
    inner = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(inner, 5)
    drop_momentum(optimizers.LightningOptimizer(inner), scheduler)
    assert inner.param_groups[0]["lr"] == 1.0
    assert scheduler.base_lrs == [1.0]


@pytest.mark.parametrize("on_wrapper", [False, True])
def test_svag_is_seen_through_with_its_scheduler(on_wrapper: bool) -> None:
    inner = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    svag = SVAG(inner, 4)
    scheduler = torch.optim.lr_scheduler.StepLR(svag if on_wrapper else inner, 5)
    for either in (svag, inner):
        with pytest.raises(InputError, match=r"StepLR of this optimizer is there too"):
            drop_momentum(either)
    assert drop_momentum(svag, scheduler).scheduler is scheduler
    assert svag.param_groups[0]["lr"] == 1.0
    assert scheduler.base_lrs == [1.0]
    with_momentum(svag, 0.5, scheduler)
    assert inner.param_groups[0]["momentum"] == 0.5


def test_pending_way_within_svag_is_that_of_its_steps() -> None:
    kept, live = parameter(), parameter()
    wrapped = [SVAG(torch.optim.SGD([p], lr=0.1, momentum=0.8), 4) for p in (kept, live)]
    for svag, p in zip(wrapped, (kept, live), strict=True):
        svag.backward(lambda p=p: p.sum(), lambda p=p: p.sum())
        svag.step()
    drop_momentum(wrapped[1], pending="apply")
    for _ in range(200):
        wrapped[0].zero_grad()
        wrapped[0].backward(lambda: 0 * kept.sum(), lambda: 0 * kept.sum())
        wrapped[0].step()
    torch.testing.assert_close(live, kept, rtol=1e-10, atol=0)


def cleared_in_loop(optimizer: torch.optim.Optimizer) -> Any:
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
    for _ in range(3):
        step(optimizer, 1.0)
        scheduler.step()
        optimizer.state.clear()
    return scheduler


def zeroed_by_hook(optimizer: torch.optim.Optimizer) -> None:
    def zero(*_: Any) -> None:
        for state in optimizer.state.values():
            state["momentum_buffer"].zero_()

    optimizer.register_step_post_hook(zero)
    step(optimizer, 1.0, times=3)


class Forgetful(torch.optim.SGD):
    """Leaves step alone, but not what it calls."""

    def _init_group(self, *arguments: Any) -> Any:
        for state in self.state.values():
            state.pop("momentum_buffer", None)
        return super()._init_group(*arguments)


@pytest.mark.parametrize(
    ("kind", "options", "disturb", "effective"),
    [
        (torch.optim.SGD, {}, cleared_in_loop, "0.01"),
        (SGD, {"nesterov": True}, cleared_in_loop, "0.019"),
        (torch.optim.SGD, {"dampening": 0.5}, zeroed_by_hook, "0.005"),
        (SGD, {"convention": "canonical"}, zeroed_by_hook, "0.001"),
        (Forgetful, {}, lambda optimizer: step(optimizer, 1.0, times=3), "0.01"),
    ],
)
def test_momentum_that_does_not_act_is_refused_with_its_effective_lr(
    kind: Any, options: dict[str, Any], disturb: Any, effective: str
) -> None:
    p = parameter()
    optimizer = kind([p], lr=0.01, momentum=0.9, **options)
    scheduler = disturb(optimizer)
    expected = rf"group 0 says momentum 0\.9.*no active momentum and an effective lr of {effective} .*momentum=0 and"
    with pytest.raises(InputError, match=expected):
        drop_momentum(optimizer, scheduler)
    assert optimizer.param_groups[0]["lr"] == 0.01
    before = p.detach().clone()
    step(optimizer, 1.0)
    assert (before - p).tolist() == pytest.approx([float(effective)] * 3)  # what was said is what a gradient moves


class Signed(torch.optim.SGD):
    def _init_group(self, group: Any, params: Any, grads: Any, buffers: Any) -> Any:
        found = super()._init_group(group, params, grads, buffers)
        grads[:] = [g.sign() for g in grads]
        return found


def test_steps_that_are_not_what_the_groups_say_are_refused() -> None:
    with pytest.raises(InputError, match=r"audit found none, family 'not linear'; required is SGD's own step"):
        drop_momentum(Signed([parameter()], lr=0.01, momentum=0.9))


def test_what_the_audit_reads_otherwise_but_holds_is_accepted() -> None:
    """A first rate of 0, gradients clipped inside step, updates in backward, a float32 tensor lr, frozen parameters."""
    frozen = parameter().requires_grad_(False)
    for optimizer in (
        torch.optim.SGD([parameter()], lr=0.0, momentum=0.9),
        SGD([parameter()], lr=0.1, momentum=0.9, max_norm=1.0),
        SGD([parameter()], lr=0.1, momentum=0.9, in_backward=True),
        torch.optim.SGD([parameter()], lr=torch.tensor(0.1), momentum=0.9, weight_decay=0.01),
        torch.optim.SGD([{"params": [frozen]}, {"params": [parameter()]}], lr=0.1, momentum=0.9, dampening=0.5),
    ):
        done = drop_momentum(optimizer)
        assert done.factors is not None
        assert "group 0 has no buffer yet" in str(done)


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_replaced_step_is_refused(scheduled: bool) -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5) if scheduled else None
    original = optimizer.step

    @functools.wraps(original)
    def replaced(*arguments: Any) -> None:
        original(*arguments)

    optimizer.step = replaced  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"the step of this SGD was replaced on the object"):
        drop_momentum(optimizer, scheduler)
    assert optimizer.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("rounding", ["kahan", "stochastic"])
def test_the_pending_way_is_written_as_the_weights_are_rounded(rounding: Any) -> None:
    """In bfloat16 near 1 a weight moves by 0.004 at least; the way, 0.00095, is kept in full, or on average."""
    p = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    optimizer = SGD([p], lr=1e-3, momentum=0.9, rounding=rounding)
    step(optimizer, 0.1)

    def exact() -> Tensor:
        return p.detach().double() + optimizer.state[p].get("compensation", torch.zeros_like(p)).double()

    way, before = 1e-3 * 9 * optimizer.state[p]["momentum_buffer"].double(), exact()
    drop_momentum(optimizer, pending="apply")
    # the standard error of a mean of 20,000 roundings to 0.004 is below 1.5e-5
    assert (before - exact()).mean().item() == pytest.approx(way.mean().item(), abs=6e-5)
    assert "momentum_buffer" not in optimizer.state[p]


def test_num_steps_is_a_whole_number() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    for wrong in ("3", 3.0, True, -1, 0):
        with pytest.raises(InputError, match=rf"num_steps is {wrong!r}; required is a whole number ≥ 1"):
            drop_momentum(optimizer, num_steps=wrong)  # type: ignore[arg-type]


@BOTH
def test_nesterov_without_momentum_is_sgd(kind: Any) -> None:
    optimizer = kind([parameter()], lr=0.1, momentum=0.9, nesterov=True)
    optimizer.param_groups[0]["momentum"] = 0.0
    assert drop_momentum(optimizer).factors == (1.0,)
    assert optimizer.param_groups[0]["lr"] == 0.1
