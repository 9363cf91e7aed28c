"""Bit for bit as before: after a probe's passes, and after one that fails or is interrupted at any point."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from curved import LOSS
from torch import nn

from lightball.probe.curvature import Curvature
from lightball.probe.objective import Objective
from lightball.probe.scope import unchanged


class Sight:
    """Everything about a model and its surroundings, for comparison."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        states = [value for state in optimizer.state.values() for value in state.values()]
        self.objects = [id(t) for t in [*tensors, *[p.grad for p in model.parameters()], *states]]
        self.values = [
            t.detach().clone() for t in [*tensors, *[p.grad for p in model.parameters() if p.grad is not None]]
        ]
        self.values += [value.clone() for value in states if isinstance(value, torch.Tensor)]
        self.facts = [
            [p.requires_grad for p in model.parameters()],
            [module.training for module in model.modules()],
            [{name: list(value) for name, value in vars(m).items() if name.endswith("hooks")} for m in model.modules()],
            [sorted(vars(module)) for module in model.modules()],
            [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.matmul.fp32_precision,
            torch.get_default_dtype(),
        ]

    def assert_as(self, other: Sight) -> None:
        assert self.objects == other.objects
        assert all(torch.equal(a, b) for a, b in zip(self.values, other.values, strict=True))
        assert self.facts == other.facts


def task() -> tuple[nn.Module, torch.optim.Optimizer, tuple]:
    """A model with all kinds of state, in the middle of training."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()
    model[3].weight.requires_grad_(False)
    model[4].eval()
    batch = (torch.randn(12, 6, dtype=torch.float64), torch.randint(3, (12,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        LOSS(model, batch).backward()
        optimizer.step()
    model[0].bias.grad = None
    return model, optimizer, batch


def measured(model: nn.Module, batch: tuple, loss=LOSS, mode: str = "as is") -> None:
    objective = Objective(model, loss, mode=mode)
    _, gradient = objective.loss_and_gradient(batch)
    objective.shifted(-0.1 * gradient).loss_and_gradient(batch)
    for kind in ("hessian", "ggn") if loss is LOSS else ("hessian",):
        for budget in (2**30, 0):
            Curvature(objective, [batch, batch], kind, memory_budget=budget)(torch.stack([gradient, -gradient]))


def vandal(model: nn.Module, optimizer: torch.optim.Optimizer, real: nn.Module):
    """A loss that leaves nothing where it was, with the model that it is given and the one that it remembers."""

    first = optimizer.param_groups[0]["params"][0]

    def loss(inner: nn.Module, batch: tuple) -> torch.Tensor:
        value = LOSS(inner, batch)
        with torch.no_grad():
            for p in real.parameters():
                p.data.mul_(0.5)
                p.grad = torch.ones_like(p)
        real[1].running_mean.add_(1)
        real[0].requires_grad_(False)
        real.eval()
        real[2].p = 0.9
        real.scratch = value
        real[0].register_forward_hook(lambda *_: None)
        real.register_buffer("more", torch.ones(1))
        optimizer.param_groups[0]["lr"] = 7.0
        optimizer.state[first]["momentum_buffer"].zero_()
        optimizer.state[real[2]] = {"extra": 1}
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(3)
        torch.set_grad_enabled(False)
        torch.set_autocast_enabled("cpu", True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        torch.set_default_dtype(torch.float64)
        return value

    return loss


@pytest.mark.parametrize("mode", ["as is", "train", "eval"])
def test_passes_alone_change_nothing(mode: str) -> None:
    model, optimizer, batch = task()
    before = Sight(model, optimizer)
    measured(model, batch, mode=mode)
    before.assert_as(Sight(model, optimizer))


def test_a_scope_undoes_whatever_a_loss_does() -> None:
    model, optimizer, batch = task()
    gradient_objects = [p.grad for p in model.parameters()]  # keeps them alive, so that ids tell objects apart
    before = Sight(model, optimizer)
    with unchanged(model, optimizer):
        vandal(model, optimizer, model)(model, batch)
        assert not torch.equal(model[0].weight, before.values[0])
    before.assert_as(Sight(model, optimizer))
    assert all(p.grad is g for p, g in zip(model.parameters(), gradient_objects, strict=True))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_so_does_a_pass_that_ends_badly_at_any_call(error: type[BaseException]) -> None:
    model, optimizer, batch = task()
    kept = [p.grad for p in model.parameters()]
    before = Sight(model, optimizer)
    for fatal in range(1, 7):
        calls = []

        def loss(inner: nn.Module, batch: tuple, fatal=fatal, calls=calls) -> torch.Tensor:
            calls.append(1)
            if len(calls) == fatal:
                vandal(inner, optimizer, model)(inner, batch)
                raise error
            return LOSS(inner, batch)

        with pytest.raises(error), unchanged(model, optimizer):
            measured(model, batch, loss=loss)
        assert len(calls) == fatal
        before.assert_as(Sight(model, optimizer))
    assert len(kept) == len(list(model.parameters()))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_without_a_scope_a_pass_that_fails_puts_weights_modes_and_generators_back(error: type[BaseException]) -> None:
    model, optimizer, batch = task()
    before = Sight(model, optimizer)

    def loss(inner: nn.Module, batch: tuple) -> torch.Tensor:
        torch.rand(3)
        inner(batch[0])
        raise error

    with pytest.raises(error):
        measured(model, batch, loss=loss, mode="train")
    before.assert_as(Sight(model, optimizer))


def test_an_interrupt_while_things_are_put_back_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, batch = task()
    before = Sight(model, optimizer)
    original, interrupts = torch.set_rng_state, []

    def interrupted(state: torch.Tensor) -> None:
        if not interrupts:
            interrupts.append(1)
            raise KeyboardInterrupt
        original(state)

    def body() -> None:
        vandal(model, optimizer, model)(model, batch)
        monkeypatch.setattr(torch, "set_rng_state", interrupted)

    with pytest.raises(KeyboardInterrupt), unchanged(model, optimizer):
        body()
    assert interrupts
    before.assert_as(Sight(model, optimizer))


def test_weights_that_a_graph_holds_are_not_touched() -> None:
    model, optimizer, batch = task()
    loss = LOSS(model, batch)
    with unchanged(model, optimizer):
        measured(model, batch)
    loss.backward()  # would complain of weights written in place since


def test_gradient_mode_and_autocast_around_come_back() -> None:
    model, optimizer, batch = task()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = Sight(model, optimizer)
        with unchanged(model, optimizer):
            measured(model, batch)
        before.assert_as(Sight(model, optimizer))
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode(), unchanged(model):
        measured(model, batch)
