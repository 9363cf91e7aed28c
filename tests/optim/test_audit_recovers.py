"""An audit recovers the numbers of linear optimizers from their steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightball.optim.auditing import Audited, audit, audit_text
from lightball.optim.auditing.auditor import UNSEEN
from lightball.optim.sgd import SGD

CLOSE = 1e-6


def params() -> list[nn.Parameter]:
    return list(nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 1)).parameters())


def one(optimizer: object) -> Audited:
    (found,) = audit(optimizer)
    return found


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    momentum = draw(st.sampled_from([0.0, 0.3, 0.9, 0.99, 0.999]))
    dampening = draw(st.sampled_from([0.0, 0.5, 0.9])) if momentum else 0.0
    lr = draw(st.floats(1e-4, 1.0))
    foreach, fused = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    return {
        "lr": torch.tensor(lr, dtype=torch.float64) if draw(st.booleans()) and not fused else lr,
        "momentum": momentum,
        "dampening": dampening,
        "nesterov": bool(momentum) and not dampening and draw(st.booleans()),
        "weight_decay": draw(st.sampled_from([0.0, 1e-4, 5e-2])),
        "maximize": draw(st.booleans()),
        "foreach": foreach,
        "fused": fused,
    }


@settings(max_examples=80, derandomize=True)
@given(configurations())
def test_torch_sgd(configuration: dict[str, Any]) -> None:
    found = one(torch.optim.SGD(params(), **configuration))
    momentum, dampening = configuration["momentum"], configuration["dampening"]
    lr, decay = float(configuration["lr"]), configuration["weight_decay"]
    assert found.family == ("nesterov" if configuration["nesterov"] else "sgdm" if momentum else "sgd")
    assert found.nonlinearity is None
    assert found.lr == pytest.approx(lr, rel=CLOSE)
    assert found.effective_lr == pytest.approx(lr * (1 - dampening) / (1 - momentum), rel=CLOSE)
    assert found.momentum == pytest.approx(momentum, rel=CLOSE)
    assert found.dampening == pytest.approx(dampening, rel=CLOSE)
    assert found.nesterov is configuration["nesterov"]
    assert found.weight_decay == pytest.approx(decay, rel=CLOSE)
    assert found.decoupled is False
    assert found.decay_per_step == pytest.approx(decay * found.effective_lr, rel=CLOSE)
    assert found.maximize is configuration["maximize"]
    assert found.momentum_active is (momentum > 0)
    assert found.memory_length == pytest.approx(1 / (1 - momentum), rel=CLOSE)
    assert found.first_step == pytest.approx(1 / (1 - dampening), rel=CLOSE)
    assert found.state_bytes_per_parameter == (4 if momentum else 0)
    assert found.notes == (UNSEEN,)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("in_backward", [False, True])
def test_our_sgd_in_both_conventions(momentum: float, in_backward: bool) -> None:
    made = {"momentum": momentum, "weight_decay": 1e-3, "in_backward": in_backward}
    torch_form, canonical = (one(SGD(params(), 0.1, convention=c, **made)) for c in ("torch", "canonical"))
    assert torch_form.effective_lr == pytest.approx(0.1 / (1 - momentum), rel=CLOSE)
    assert canonical.effective_lr == pytest.approx(0.1, rel=CLOSE)
    assert canonical.dampening == pytest.approx(momentum, rel=CLOSE)
    assert canonical.first_step == 1.0
    for found in (torch_form, canonical):
        assert (found.momentum, found.weight_decay) == pytest.approx((momentum, 1e-3), rel=CLOSE)
        assert found.notes == (UNSEEN,)


@pytest.mark.parametrize(
    ("max_norm", "clipping", "in_backward"),
    [(2.0, "parameter", False), (2.0, "global", False), (0.5, "parameter", True), (2.0, "exact", True)],
)
def test_clipping_inside_step_is_seen_and_the_rest_still_found(
    max_norm: float, clipping: Any, in_backward: bool
) -> None:
    optimizer = SGD(params(), 0.1, 0.9, max_norm=max_norm, clipping=clipping, in_backward=in_backward)
    found = one(optimizer)
    assert (found.family, found.nonlinearity) == ("sgdm", "clipping")
    assert found.clips_at == pytest.approx(max_norm, rel=1e-4)
    assert found.effective_lr == pytest.approx(1.0, rel=CLOSE)
    own = "each parameter's norm" in " ".join(found.notes)
    assert own is (clipping == "parameter")


def two_groups() -> list[dict[str, Any]]:
    first, *rest = params()
    return [{"params": [first]}, {"params": rest, "lr": 0.01, "nesterov": True}]


class GloballyClipped(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 1.0)
        return super().step(closure)


@pytest.mark.parametrize("make", [GloballyClipped, partial(SGD, max_norm=1.0, clipping="global")])
def test_the_norm_of_all_groups_is_one_number(make: Any) -> None:
    for found in audit(make(two_groups(), lr=0.1, momentum=0.9)):
        assert found.clips_at == pytest.approx(1.0, rel=1e-5)
        assert found.notes[0] == (
            "gradients are limited inside step, the norm of all groups together at 1; the rest holds below"
        )


def test_the_norm_of_each_parameter_in_groups_of_one() -> None:
    groups = [{"params": [p]} for p in params()[::2]]
    for found in audit(SGD(groups, 0.1, max_norm=1.0)):
        assert found.clips_at == pytest.approx(1.0, rel=1e-5)
        assert "each parameter's norm at 1" in found.notes[0]


class GroupsClipped(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        return super().step(closure)


def test_the_norm_of_each_group() -> None:
    first, second, third, fourth = params()
    groups = [{"params": [first, second]}, {"params": [third, fourth]}]
    for found in audit(GroupsClipped(groups, lr=0.1, momentum=0.9)):
        assert found.clips_at == pytest.approx(1.0, rel=1e-5)
        assert "the group's norm at 1" in found.notes[0]


def test_clipping_by_the_norm_of_the_step_before() -> None:
    made = SGD(two_groups(), 0.1, 0.9, max_norm=1.0, clipping="previous", in_backward=True)
    for found in audit(made):
        assert found.clips_at == pytest.approx(1.0, rel=1e-5)
        assert "the norm of all groups together at 1, judged by earlier steps too" in found.notes[0]


class Skipping(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        total = sum(float(p.grad.square().sum()) for group in self.param_groups for p in group["params"])
        return super().step(closure) if total < 1e4 else None


def test_large_gradients_that_are_skipped() -> None:
    found = one(Skipping(params(), lr=0.1, momentum=0.9))
    assert (found.family, found.nonlinearity, found.clips_at) == ("sgdm", "skipping", None)
    assert found.effective_lr == pytest.approx(1.0, rel=CLOSE)
    assert found.notes[0].startswith("steps with large gradients are skipped")
    assert "with large gradients skipped inside step" in " ".join(audit_text([found]).split())


@pytest.mark.parametrize("lr", [1e-12, 1e-9, 1e-7, 1e-4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, partial(SGD, convention="canonical"), partial(SGD, in_backward=True)]
)
def test_small_rates(lr: float, momentum: float, kind: Any) -> None:
    first, *rest = params()
    groups = [{"params": [first]}, {"params": rest, "lr": 0.003, "weight_decay": 1e-11}]
    small, usual = audit(kind(groups, lr=lr, momentum=momentum, weight_decay=5e-5))
    kept = 1.0 if small.dampening else 1 - momentum
    assert (small.lr, small.effective_lr) == pytest.approx((lr, lr / kept), rel=CLOSE)
    assert (small.momentum, small.weight_decay) == pytest.approx((momentum, 5e-5), rel=CLOSE)
    assert small.decay_per_step == pytest.approx(5e-5 * lr / kept, rel=CLOSE)
    assert usual.lr == pytest.approx(0.003, rel=CLOSE)
    assert small.notes == usual.notes == (UNSEEN,)


class Stubborn(torch.optim.SGD):
    """Whose steps have rates of their own, or weights that shrink whatever the rate."""

    rate: float | None = None
    shrink = 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - self.shrink).add_(p.grad, alpha=-(self.rate or group["lr"]))


def test_what_does_not_follow_a_small_rate_is_found_at_that_rate() -> None:
    deaf = Stubborn(params(), lr=1e-5)
    deaf.rate = 0.1
    found = one(deaf)
    assert found.lr == pytest.approx(0.1, rel=CLOSE)
    assert found.notes[0] == "the group says lr 1e-05, but its steps have 0.1"
    shrinking = Stubborn(params(), lr=1e-5)
    shrinking.shrink = 0.01
    found = one(shrinking)
    assert (found.lr, found.decay_per_step) == pytest.approx((1e-5, 0.01), rel=CLOSE)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RMSprop", "Adadelta", "SGD"])
def test_what_only_says_how_a_step_is_computed_is_left_aside(name: str) -> None:
    flag = {"differentiable": True} if name == "SGD" else {"capturable": True}
    found = one(getattr(torch.optim, name)(params(), lr=0.01, **flag))
    assert found.family == ("sgd" if name == "SGD" else "not linear")


def test_groups_are_told_apart() -> None:
    first, *rest = params()
    optimizer = torch.optim.SGD(
        [{"params": [first], "momentum": 0.5}, {"params": rest, "lr": 0.01, "weight_decay": 0.1, "nesterov": True}],
        lr=0.1,
        momentum=0.9,
    )
    one, two = audit(optimizer)
    assert (one.group, one.family, one.effective_lr, one.weight_decay) == (0, "sgdm", 0.2, 0.0)
    assert (two.group, two.family, two.effective_lr, two.weight_decay) == (1, "nesterov", 0.1, 0.1)


def test_a_rate_of_zero_at_the_start_of_a_warm_up() -> None:
    optimizer = torch.optim.SGD(params(), 0.1, momentum=0.9, weight_decay=0.01)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: k / 10)
    found = one(optimizer)
    assert (found.lr, found.effective_lr, found.decay_per_step) == (0, 0, 0)
    assert (found.family, found.momentum, found.weight_decay) == ("sgdm", 0.9, 0.01)
    assert found.notes[0] == "lr is 0 now; the rest was found with lr 1 on the copy"


def test_bytes_follow_the_parameters_precision() -> None:
    low = nn.Linear(4, 4).to(torch.bfloat16)
    assert one(torch.optim.SGD(low.parameters(), 0.1, momentum=0.9)).state_bytes_per_parameter == 2
