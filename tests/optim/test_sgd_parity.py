"""`lightball.optim.SGD` against `torch.optim.SGD`, bit for bit, and its in-place update against the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightball.optim import SGD, update
from lightball.optim.update import update_one
from lightball.rules import kernel

NUM_STEPS = 6
SHAPES = ((5, 4), (3,), (), (2, 3, 2), (1, 7))
PATHS: tuple[dict[str, bool], ...] = ({}, {"foreach": True}, {"fused": True})


@dataclass(frozen=True)
class Case:
    """A configuration, and which parameters have a gradient from which step on."""

    groups: tuple[dict[str, Any], ...]
    path: dict[str, bool]
    tensor_lr: bool
    scheduler: str
    first_steps: tuple[int, ...]
    seed: int


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    momentum = draw(st.just(0.0) | st.floats(0.01, 0.99))
    nesterov = momentum > 0 and draw(st.booleans())
    return {
        "lr": draw(st.floats(0.0, 1.0)),
        "momentum": momentum,
        "nesterov": nesterov,
        "dampening": 0.0 if nesterov else draw(st.just(0.0) | st.floats(0.01, 0.99)),
        "weight_decay": draw(st.just(0.0) | st.floats(0.0, 0.1)),
        "maximize": draw(st.booleans()),
    }


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return Case(
        groups=draw(st.tuples(groups()) | st.tuples(groups(), groups())),
        path=draw(st.sampled_from(PATHS)),
        tensor_lr=draw(st.booleans()),
        scheduler=draw(st.sampled_from(("none", "step", "cosine", "one cycle", "cyclic"))),
        first_steps=tuple(draw(st.integers(0, 3)) for _ in SHAPES),
        seed=draw(st.integers(0, 2**31)),
    )


def parameters(seed: int, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def build(kind: type[Optimizer], params: list[nn.Parameter], case: Case) -> Optimizer:
    split = len(params) // len(case.groups)
    parts = (params,) if len(case.groups) == 1 else (params[:split], params[split:])
    made = [{"params": part, **group} for part, group in zip(parts, case.groups, strict=True)]
    for group in made if case.tensor_lr else []:
        group["lr"] = torch.tensor(group["lr"])
    return kind(made, **case.path)  # type: ignore[call-arg]


def scheduler(optimizer: Optimizer, case: Case) -> lr_scheduler.LRScheduler | None:
    cycles = all(group["momentum"] > 0 for group in case.groups)
    match case.scheduler:
        case "step":
            return lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.3)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=NUM_STEPS)
        case "one cycle" if not case.tensor_lr:
            return lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=NUM_STEPS + 1, cycle_momentum=cycles)
        case "cyclic" if not case.tensor_lr:
            return lr_scheduler.CyclicLR(optimizer, 0.01, 0.5, step_size_up=2, cycle_momentum=cycles)
    return None


def trajectory(kind: type[Optimizer], case: Case) -> Iterator[list[Tensor]]:
    params = parameters(case.seed)
    optimizer = build(kind, params, case)
    schedule = scheduler(optimizer, case)
    noise = torch.Generator().manual_seed(case.seed + 1)
    for k in range(NUM_STEPS):
        for p, first in zip(params, case.first_steps, strict=True):
            g = torch.randn(p.shape, generator=noise)
            p.grad = g if k >= first else None
        optimizer.step()
        if schedule is not None:
            schedule.step()
        buffers = [optimizer.state[p].get("momentum_buffer") for p in params if p in optimizer.state]
        yield [p.detach().clone() for p in params] + [b.clone() for b in buffers if b is not None]


def usable_by_torch(case: Case) -> bool:
    """torch's fused path takes no list of which some have a buffer and some have none; ours does."""
    if "fused" in case.path:
        first_steps = (0,) * len(SHAPES)
        return case.first_steps == first_steps
    return True


@settings(max_examples=200, deadline=None, derandomize=True)
@given(case=cases())
def test_bit_equal_to_torch(case: Case) -> None:
    if not usable_by_torch(case):
        case = Case(case.groups, case.path, case.tensor_lr, case.scheduler, (0,) * len(SHAPES), case.seed)
    for theirs, ours in zip(trajectory(torch.optim.SGD, case), trajectory(SGD, case), strict=True):
        assert len(theirs) == len(ours)
        assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(group=groups(), canonical=st.booleans(), seed=st.integers(0, 2**31))
def test_update_one_is_the_kernel(group: dict[str, Any], canonical: bool, seed: int) -> None:
    if canonical:
        group |= {"nesterov": False, "dampening": group["momentum"]}
    numbers = {name: group[name] for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov")}
    hyper = kernel.Hyperparameters(**numbers)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(11, generator=generator)
    p, state, expected = x.clone(), {}, kernel.init(x) if canonical else {}
    optimizer = SGD([nn.Parameter(x)], convention="canonical" if canonical else "torch", **group)
    for _ in range(NUM_STEPS):
        g = torch.randn(11, generator=generator)
        before = g.clone()
        update_one(p, g, state, optimizer.param_groups[0])
        x, expected = kernel.step(x, -g if group["maximize"] else g, expected, hyper)
        assert torch.equal(p, x)
        assert torch.equal(g, before)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_bit_equal(path: dict[str, bool], dtype: torch.dtype) -> None:
    ends = []
    for kind in (torch.optim.SGD, SGD):
        params = parameters(0, dtype)
        optimizer = kind(params, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True, **path)  # type: ignore[arg-type]
        for k in range(4):
            for i, p in enumerate(params):
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(31 * k + i)).to(dtype)
            optimizer.step()
        ends.append(params)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_large_parameters_in_pieces(path: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "_PIECE_ON_CPU", 64)
    monkeypatch.setattr(update, "_PIECE", 64)
    ends = []
    for kind in (torch.optim.SGD, SGD):
        torch.manual_seed(0)
        shapes = ((37, 5), (301,), (2, 100), (6, 3, 4, 2))
        params = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        params[3].data = params[3].data.contiguous(memory_format=torch.channels_last)
        optimizer = kind(params, lr=0.1, momentum=0.9, weight_decay=0.1, maximize=True, **path)  # type: ignore[arg-type]
        for _ in range(3):
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
        ends.append(params)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_step_without_momentum_makes_no_gradient_sized_temporary() -> None:
    p = nn.Parameter(torch.randn(2048, 1024))
    p.grad = torch.randn_like(p)
    optimizer = SGD([p], lr=0.1, weight_decay=0.1)
    with torch.profiler.profile(profile_memory=True) as profile:
        optimizer.step()
    largest = max((event.self_cpu_memory_usage for event in profile.events()), default=0)
    assert 0 < largest < p.numel() * p.element_size() / 4
    assert not optimizer.state_dict()["state"]


class LargestResult(TorchDispatchMode):
    """The most numbers that one operation puts into new memory, in one tensor or in a list of them."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        old = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in old]
        self.most = max(self.most, sum(x.numel() for x in made))
        return result


@pytest.mark.parametrize(
    "options",
    [{"foreach": True}, {"foreach": False}, {"fused": True}, {"rounding": "stochastic"}, {"rounding": "kahan"}],
)
def test_temporaries_stay_small(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "_PIECE_ON_CPU", 64)
    monkeypatch.setattr(update, "_PIECE", 64)
    shapes = [(32,)] * 10 if options.get("foreach") else [(100, 8)]
    dtype = torch.bfloat16 if "rounding" in options else torch.float32
    params = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
    optimizer = SGD(params, momentum=0.9, weight_decay=0.1, **options)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()  # makes the buffers
    with LargestResult() as results:
        optimizer.step()
    assert results.most <= 64


def test_complex_parameters_as_torch() -> None:
    ends = []
    for kind in (torch.optim.SGD, SGD):
        p = nn.Parameter(torch.tensor([1 + 2j, -3j]))
        optimizer = kind([p], lr=0.1, momentum=0.9, weight_decay=0.1)
        for k in range(3):
            p.grad = torch.tensor([1j, 2 - 1j]) * (k + 1)
            optimizer.step()
        ends.append(p.detach())
    assert torch.equal(*ends)


def test_sparse_gradients_as_torch() -> None:
    ends = []
    for kind in (torch.optim.SGD, SGD):
        torch.manual_seed(0)
        table = nn.Embedding(10, 3, sparse=True)
        optimizer = kind(table.parameters(), lr=0.1)
        for rows in ([1, 2, 1], [3, 9, 1]):
            optimizer.zero_grad()
            table(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
        ends.append(table.weight.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_differentiable_as_torch(momentum: float) -> None:
    """torch's own graph through a buffer that is written in place does not reach lr, so there lr is a number."""
    found = []
    for kind in (torch.optim.SGD, SGD):
        lr = torch.tensor(0.1, requires_grad=True) if momentum == 0 else 0.1
        decay = torch.tensor(0.2, requires_grad=True)
        start = torch.tensor([1.0, -2.0], requires_grad=True)
        x = start.clone()
        x.retain_grad()
        optimizer = kind([x], lr=lr, momentum=momentum, weight_decay=decay, differentiable=True)
        for _ in range(2):
            x.grad = torch.tensor([0.5, 1.5])
            optimizer.step()
        inputs = [value for value in (lr, decay, start) if isinstance(value, Tensor)]
        found.append(torch.autograd.grad(x.square().sum(), inputs))
    assert all(torch.allclose(a, b) and a.any() for a, b in zip(*found, strict=True))


def test_closure_is_called_once_with_gradients_enabled() -> None:
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer, calls = SGD([p], lr=0.25), []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert calls == [True]
    assert p.item() == 1.0
