"""An audit changes nothing: weights, gradients, state, groups, hooks and random generators are as before."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lightball.errors import InputError
from lightball.optim.auditing import audit
from lightball.optim.sgd import SGD
from lightball.optim.svag import SVAG


def training(make: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = make(model.parameters())
    advance(model, optimizer)
    return model, optimizer


def advance(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return copy.deepcopy(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "gradients": gradients,
            "rng": torch.get_rng_state(),
            "attributes": sorted(vars(optimizer)),
            "defaults": optimizer.defaults,
        }
    )


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


MAKERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1), momentum=0.9, weight_decay=0.1),
    "fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True),
    "ours": lambda p: SGD(p, 0.1, 0.9, rounding="stochastic"),
    "in backward": lambda p: SGD(p, 0.1, 0.9, in_backward=True, max_norm=1.0, clipping="previous"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_bit_identical(name: str) -> None:
    model, optimizer = training(MAKERS[name])
    twin, twin_optimizer = training(MAKERS[name])
    before = everything(model, optimizer)
    audit(optimizer)
    assert same(before, everything(model, optimizer))
    advance(model, optimizer)
    advance(twin, twin_optimizer)
    assert same(everything(model, optimizer), everything(twin, twin_optimizer))


def test_no_hook_and_no_scheduler_is_called() -> None:
    _, optimizer = training(MAKERS["sgd"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    everywhere = register_optimizer_step_pre_hook(lambda *_: calls.append("everywhere"))
    try:
        (found,) = audit(optimizer)
    finally:
        everywhere.remove()
    assert calls == []
    assert scheduler.state_dict()["_step_count"] == 1
    assert found.momentum == 0.9
    assert found.notes[0] == "2 hooks on step were not called"


def test_a_step_replaced_on_the_object_is_said() -> None:
    _, optimizer = training(MAKERS["sgd"])
    optimizer.step = lambda *_: pytest.fail("called")  # type: ignore[method-assign]
    (found,) = audit(optimizer)
    assert found.notes[0] == "step was replaced on this object; that of its class was audited"


def test_what_cannot_be_copied_is_left_out_and_said() -> None:
    _, optimizer = training(MAKERS["sgd"])
    optimizer.logger = iter([])  # type: ignore[attr-defined]
    optimizer.reader = (line for line in [])  # type: ignore[attr-defined]
    (found,) = audit(optimizer)
    assert found.effective_lr == pytest.approx(1.0)
    assert "could not be copied and was left out: reader" in found.notes


class Logging(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        self.log.append("x")
        return super().step(closure)


def test_what_a_step_needs_and_cannot_be_copied_is_named() -> None:
    optimizer = Logging(nn.Linear(2, 1).parameters(), lr=0.1)
    optimizer.log = (line for line in [])
    message = r"Logging cannot be audited: .* no attribute 'log'; the copy lacks what cannot be copied: log; audit with"
    with pytest.raises(InputError, match=message):
        audit(optimizer)


def test_a_value_of_a_group_that_cannot_be_copied_is_left_out_and_said() -> None:
    optimizer = torch.optim.SGD([{"params": nn.Linear(2, 1).parameters(), "log": (line for line in [])}], lr=0.1)
    (found,) = audit(optimizer)
    assert found.effective_lr == 0.1
    assert "could not be copied and was left out: log" in found.notes


def test_a_living_grad_scaler_is_told_as_the_reason() -> None:
    optimizer = SGD(nn.Linear(2, 1).parameters(), 0.1, in_backward=True)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(InputError, match=r"^in_backward=True with a GradScaler"):
        audit(optimizer)
    outer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    outer.inner = optimizer  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"^in_backward=True with a GradScaler"):
        audit(outer)
    del scaler
    assert audit(optimizer)[0].family == "sgd"


def test_the_heap_is_searched_once_for_all_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = SGD(nn.Linear(2, 1).parameters(), 0.1, in_backward=True)
    searches: list[object] = []
    find = gc.get_referrers
    monkeypatch.setattr(gc, "get_referrers", lambda *kinds: searches.append(None) or find(*kinds))
    audit(optimizer)
    assert len(searches) <= 2


class Holding(torch.optim.SGD):
    """With masters, a snapshot and the model at hand, and steps from the snapshot on."""

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        super().__init__(model.parameters(), **settings)
        self.model = model
        self.snapshot = {p: p.detach().clone() for p in model.parameters()}
        self.masters = [nn.Parameter(p.detach().clone()) for p in model.parameters()]

    def step(self, closure: Any = None) -> Any:
        for p, snapshot in self.snapshot.items():
            assert p.shape == snapshot.shape
        return super().step(closure)


def test_what_has_a_parameters_shape_is_not_copied_as_a_whole() -> None:
    optimizer = Holding(nn.Linear(1000, 400), lr=0.1, momentum=0.9)
    with torch.profiler.profile(profile_memory=True) as profiler:
        (found,) = audit(optimizer)
    assert found.momentum == pytest.approx(0.9)
    assert max(event.cpu_memory_usage for event in profiler.events()) < 100_000


def test_svag_is_seen_through() -> None:
    (found,) = audit(SVAG(torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9), 4))
    assert (found.family, found.effective_lr) == ("sgdm", pytest.approx(1.0))
    assert found.notes[0] == "this is the optimizer inside SVAG, without what SVAG does around its step"


def test_a_large_model_is_not_copied() -> None:
    huge = nn.Parameter(torch.empty(1 << 50, device="meta"))
    (found,) = audit(torch.optim.SGD([huge], 0.1, momentum=0.9))
    assert found.state_bytes_per_parameter == 4


def test_wrappers_of_launchers_are_looked_into() -> None:
    accelerate = pytest.importorskip("accelerate")
    _, optimizer = training(MAKERS["sgd"])
    (found,) = audit(accelerate.Accelerator(cpu=True).prepare(optimizer))
    assert found.momentum == 0.9
    assert found.notes[0].startswith("this is the optimizer inside AcceleratedOptimizer")


class Inheriting(torch.optim.SGD):
    """Whose step goes through that of torch, hooks included, and draws random numbers."""

    def step(self, closure: Any = None) -> Any:
        torch.rand(3)
        return super().step(closure)


def test_neither_inner_hooks_nor_the_generator() -> None:
    training(MAKERS["sgd"])  # from then on, torch's own step calls hooks
    model, optimizer = training(lambda p: Inheriting(p, 0.1, momentum=0.9))
    optimizer.register_step_pre_hook(lambda *_: pytest.fail("called"))
    before = everything(model, optimizer)
    audit(optimizer)
    assert same(before, everything(model, optimizer))
