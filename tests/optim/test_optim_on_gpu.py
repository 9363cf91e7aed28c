"""On a GPU: torch's SGD on each path, in backward, clipping, stochastic rounding by the GPU's generator, GradScaler."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim import SGD

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

OPTIONS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(30, 200), nn.Tanh(), nn.Linear(200, 10)).cuda()


def loss_of(model: nn.Module, k: int) -> Tensor:
    x = torch.randn(16, 30, generator=torch.Generator().manual_seed(k)).cuda()
    return model(x).square().sum()


def train(model: nn.Module, optimizer: Optimizer, num_steps: int = 5) -> list[Tensor]:
    for k in range(num_steps):

        def closure(k: int = k) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, k)
            loss.backward()
            return loss

        optimizer.step(closure)
    return list(model.parameters())


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", [{}, {"foreach": False}, {"foreach": True}, {"fused": True}])
def test_is_torchs_on_each_path(path: dict[str, bool]) -> None:
    ours, theirs = network(), network()
    ends = train(ours, SGD(ours.parameters(), **OPTIONS, **path))  # type: ignore[arg-type]
    assert_close(ends, train(theirs, torch.optim.SGD(theirs.parameters(), **OPTIONS, **path)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("in_step", "in_backward", "max_norm"),
    [("parameter", "parameter", None), ("parameter", "parameter", 0.5), ("global", "exact", 0.5)],
)
def test_in_backward(in_step: Any, in_backward: Any, max_norm: float | None) -> None:
    plain, ours = network(), network()
    after = train(plain, SGD(plain.parameters(), **OPTIONS, max_norm=max_norm, clipping=in_step))
    optimizer = SGD(ours.parameters(), **OPTIONS, max_norm=max_norm, clipping=in_backward, in_backward=True)
    assert_close(train(ours, optimizer), after)
    assert all(p.grad is None for p in ours.parameters())


def test_two_passes_have_the_same_random_numbers() -> None:
    model = nn.Sequential(network(), nn.Dropout(0.5))
    optimizer = SGD(model.parameters(), in_backward=True, max_norm=0.5, clipping="exact")
    train(model, optimizer)  # a closure whose second run differs is refused


@pytest.mark.parametrize("in_backward", [False, True])
def test_stochastic_rounding_is_unbiased_and_resumes(in_backward: bool) -> None:
    p = nn.Parameter(torch.ones(100_000, dtype=torch.bfloat16, device="cuda"))
    optimizer = SGD([p], lr=1e-4, rounding="stochastic", in_backward=in_backward)
    before = torch.cuda.get_rng_state()
    for _ in range(20):
        p.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(torch.cuda.get_rng_state(), before)  # a generator of its own
    # 20 steps of 1e-4 down a grid of 2^-8: a standard error of the mean of 9e-6 at most; nearest would stay at 1
    assert p.float().mean().item() == pytest.approx(1 - 20e-4, abs=5e-5)
    twin = nn.Parameter(p.detach().clone())
    resumed = SGD([twin], rounding="stochastic", in_backward=in_backward)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for weight, its in ((p, optimizer), (twin, resumed)):
        weight.sum().backward()
        its.step()
    assert torch.equal(p, twin)


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_under_a_grad_scaler(fused: bool) -> None:
    model = network()
    optimizer, scaler = SGD(model.parameters(), **OPTIONS, fused=fused), torch.amp.GradScaler("cuda")
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(loss_of(model, 0) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert not optimizer.state
    with pytest.raises(InputError, match="with a GradScaler"):
        SGD(model.parameters(), in_backward=True)
