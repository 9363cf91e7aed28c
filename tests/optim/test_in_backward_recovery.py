"""In backward where a pass fails or its step is left out: the loop goes on, and is told that the weights have moved."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim.sgd import SGD

MOVED = r"zero_grad\(\) after a backward pass without step\(\).*it has moved 2 parameters, which stay so"


class Failing(torch.autograd.Function):
    """The identity, whose backward fails as one does that is out of memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise MemoryError


def network() -> nn.ModuleList:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])


def loss_of(model: Any, fail: bool = False) -> Tensor:
    hidden = model[0](torch.ones(5, 3)).tanh()
    loss: Tensor = model[1](Failing.apply(hidden) if fail else hidden).square().sum()
    return loss


def fail(model: nn.Module) -> None:
    with pytest.raises(MemoryError):
        loss_of(model, fail=True).backward()


@pytest.mark.parametrize("clipping", ["parameter", "previous"])
def test_a_failed_pass_is_made_again(clipping: Any) -> None:
    """From the weights that it left, of which the second layer's have moved."""
    model, expected = network(), network()
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "in_backward": True, "max_norm": 9.0, "clipping": clipping}
    optimizer = SGD(model.parameters(), **options)
    fail(model)
    assert torch.equal(model[0].weight, expected[0].weight)
    assert not torch.equal(model[1].weight, expected[1].weight)
    with pytest.warns(UserWarning, match=MOVED):
        optimizer.zero_grad()
    expected.load_state_dict(model.state_dict())
    after = SGD(expected.parameters(), **options)
    after.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, its in ((model, optimizer), (expected, after)):
        loss_of(net).backward()
        its.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("ended_by", ["step", "zero_grad"])
@pytest.mark.filterwarnings("ignore:zero_grad")
def test_the_norm_of_a_failed_pass_is_not_the_previous_one(ended_by: str) -> None:
    model = network()
    optimizer = SGD(model.parameters(), in_backward=True, max_norm=0.1, clipping="previous")

    def previous() -> float:
        return float(optimizer.param_groups[0]["previous_norm"])

    loss_of(model).backward()
    optimizer.step()
    whole = previous()
    fail(model)
    getattr(optimizer, ended_by)()
    assert previous() == whole
    loss_of(model).backward()
    optimizer.step()
    assert previous() != whole


def test_a_step_left_out_has_been_made_and_is_told_of() -> None:
    model = network()
    optimizer = SGD(model.parameters(), in_backward=True)
    loss_of(model).backward()
    moved = model[0].weight.detach().clone()
    with pytest.warns(UserWarning, match="look at the loss before backward"):
        optimizer.zero_grad()
    assert torch.equal(model[0].weight, moved)
    loss_of(model).backward()
    optimizer.step()


def test_a_usual_loop_is_not_warned() -> None:
    model = network()
    optimizer = SGD(model.parameters(), in_backward=True)

    def closure() -> None:
        optimizer.zero_grad()
        loss_of(model).backward()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            optimizer.zero_grad()
            with optimizer.accumulating():
                loss_of(model).backward()
            optimizer.zero_grad()
            optimizer.step(closure)


def test_without_zero_grad_the_error_names_it() -> None:
    model = network()
    optimizer = SGD(model.parameters(), in_backward=True)
    fail(model)
    with pytest.raises(InputError, match=r"or zero_grad\(\) if it failed"):
        loss_of(model).backward()
    assert optimizer.param_groups


def test_an_audit_does_not_clip_by_the_norm_of_the_run() -> None:
    from lightball.optim import audit

    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, in_backward=True, max_norm=1.0, clipping="previous")
    fresh = audit(optimizer)
    (1e6 * loss_of(model)).backward()
    optimizer.step()
    (before,), (after,) = fresh, audit(optimizer)
    assert (after.family, after.lr, after.clips_at) == (before.family, before.lr, before.clips_at)
