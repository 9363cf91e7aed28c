"""Gradients of tied weights added in place: the same numbers, one copy less, and nothing in the model's way."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lightball.optim.tied import sum_in_place

WORDS, WIDTH = 4000, 64


class Words(nn.Module):
    """An embedding, a layer, and an output layer that is tied to the embedding or not."""

    def __init__(self, tied: bool = True, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WORDS, bias=bias)
        if tied:
            self.out.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.middle(self.embedding(ids))))


IDS = torch.arange(4).reshape(1, 4)


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(model(IDS)[0], IDS[0]).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def copies_at_peak(model: nn.Module) -> float:
    """The most bytes that a backward pass has alive at once, in gradients of the embedding."""
    model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        gradients(model)
    live, most = 0, 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    return most / (WORDS * WIDTH * 4)


@pytest.mark.parametrize("bias", [False, True])
def test_one_copy_less_and_the_same_gradients(bias: bool) -> None:
    plain, model = Words(bias=bias), Words(bias=bias)
    assert sum_in_place(model) == 1
    assert all(map(torch.equal, gradients(model), gradients(plain)))
    assert 2.9 < copies_at_peak(plain) < 3.3
    assert 1.9 < copies_at_peak(model) < 2.3


def test_without_tied_weights_nothing_is_hooked() -> None:
    model = Words(tied=False)
    assert sum_in_place(model) == 0
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_keep_it(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = Words()
    sum_in_place(model)
    twin = copied(model)
    assert all(map(torch.equal, gradients(twin), gradients(model)))
    assert copies_at_peak(twin) < 2.3


def test_second_derivatives_stay() -> None:
    found = []
    for model in (Words(), Words()):
        if found:
            sum_in_place(model)
        (first,) = torch.autograd.grad(model(IDS).square().sum(), [model.embedding.weight], create_graph=True)
        found += torch.autograd.grad(first.square().sum(), [model.embedding.weight])
    assert torch.equal(*found)


def test_without_a_graph_and_with_recomputed_activations() -> None:
    model, plain = Words(), Words()
    sum_in_place(model)
    with torch.no_grad():
        assert torch.equal(model(IDS), plain(IDS))
    found = []
    for each in (model, plain):
        out = torch.utils.checkpoint.checkpoint(each.out, each.embedding(IDS), use_reentrant=False)
        out.square().sum().backward()
        found.append(each.embedding.weight.grad)
    assert torch.equal(*found)


def test_a_compiled_model_is_one_graph() -> None:
    model = Words()
    expected = gradients(Words())
    sum_in_place(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    nn.functional.cross_entropy(compiled(IDS)[0], IDS[0]).backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True) if p.grad is not None)
