"""The traced step: products in the layout of the parameters, the same numbers as before, and its bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from lightball.dynamics import Ensemble, stepper
from lightball.dynamics.footprint import Footprint, measure_footprint
from lightball.dynamics.graph import bytes_touched, has_convolution, untranspose_products
from lightball.oracles import MinibatchOracle, Sampling
from lightball.rules import canonical, kernel

aten = torch.ops.aten
KEEPS_SHAPE = (aten.view.default, aten._unsafe_view.default, aten.detach.default, aten.expand.default)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def count(graph_module: fx.GraphModule, target: object) -> int:
    return sum(node.target is target for node in graph_module.graph.nodes)


def transposed_products(graph_module: fx.GraphModule) -> int:
    """How many transpositions read a product, perhaps through views."""
    found = 0
    for node in graph_module.graph.nodes:
        if node.target is aten.transpose.int:
            source = node.args[0]
            while source.target in KEEPS_SHAPE:
                source = source.args[0]
            found += source.target is aten.bmm.default
    return found


def traces(oracle: MinibatchOracle, num_replicas: int, monkeypatch) -> tuple[fx.GraphModule, fx.GraphModule, list]:  # type: ignore[no-untyped-def, type-arg]
    """The step as it is traced, the same rewritten, and arguments for it."""
    seeds = range(num_replicas)
    x = oracle.init(seeds)
    states = {name: kernel.init(p) for name, p in x.items()}
    sample = oracle.stream(seeds)(0)
    lr, momentum = torch.full((num_replicas,), 0.1), torch.full((num_replicas,), 0.9)
    monkeypatch.setattr(stepper, "untranspose_products", lambda graph: graph)
    with torch.no_grad():
        raw = stepper.trace(oracle, x, states, sample, canonical(lr, momentum))
    return raw, untranspose_products(copy.deepcopy(raw)), [x, states, sample, canonical(lr, momentum)]


@pytest.mark.parametrize(("task", "products"), [("digits", 2), ("digits-conv", 1)])
def test_gradient_products_are_not_transposed(task, products, make_oracle, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    raw, rewritten, arguments = traces(make_oracle(task), 3, monkeypatch)
    assert transposed_products(raw) == products
    assert transposed_products(rewritten) == 0
    assert count(rewritten, aten.bmm.default) == count(raw, aten.bmm.default)
    ends = []
    for graph in (raw, rewritten):
        x, states, sample, hyper = copy.deepcopy(arguments)
        with torch.no_grad():
            losses = graph(*stepper.leaves(x, states, sample, hyper))
        ends.append((losses, x, states))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-7)


A, B = random(2, 3, 4), random(2, 4, 5)


def partly_erased(a: Tensor, b: Tensor) -> Tensor:
    product = a @ b
    product[:, 0] = 0
    return product.transpose(1, 2) + 1


def factor_erased(a: Tensor, b: Tensor) -> Tensor:
    a = a + 1
    product = a @ b
    a.zero_()
    return product.transpose(1, 2) + 1


def used_twice(a: Tensor, b: Tensor) -> Tensor:
    product = a @ b
    return product.transpose(1, 2) @ product


def viewed_later(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a[:1], b[:1]).transpose(1, 2).relu().transpose(1, 2).view(15)


def other_axes(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b).transpose(0, 1) + 1


@pytest.mark.parametrize(
    ("fn", "rewritten"),
    [
        (lambda a, b: (a @ b).transpose(1, 2) + 1, True),
        (lambda a, b: (a @ b).transpose(-1, -2) + 1, True),
        (lambda a, b: (a @ b).transpose(2, 1).exp() * 2, True),
        (factor_erased, True),
        (partly_erased, False),
        (used_twice, False),
        (viewed_later, False),
        (other_axes, False),
    ],
)
def test_only_products_that_nothing_else_sees_are_rewritten(fn: Callable[..., Tensor], rewritten: bool) -> None:
    raw = make_fx(fn)(A, B)
    code = raw.code
    graph = untranspose_products(raw)
    assert (graph.code != code) == rewritten
    assert count(graph, aten.bmm.default) == code.count("bmm.default")
    torch.testing.assert_close(graph(A, B), fn(A, B))


class Attention(nn.Module):
    """Its projections are products that are transposed and viewed."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0].mean(dim=1)  # type: ignore[no-any-return]


class Erasing(nn.Module):
    """Writes into a product and reads it transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)
        self.mix = nn.Parameter(torch.ones(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        y[:, 0] = 0
        return self.mix @ y.t()


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - 1).square().mean(dim=-1)


@pytest.mark.parametrize("num_replicas", [1, 3])
@pytest.mark.parametrize(("factory", "shape"), [(Attention, (6, 5, 4)), (Erasing, (6, 4))])
def test_the_traced_step_follows_the_oracle(
    factory: Callable[[], nn.Module], shape: tuple[int, ...], num_replicas: int
) -> None:
    oracle = MinibatchOracle(factory, squares, random(*shape), torch.zeros(6), Sampling(6, 6))
    seeds = range(num_replicas)
    start = oracle.init(seeds)
    _, gradients = oracle.noisy_gradient(start, oracle.stream(seeds)(0))
    ensemble = Ensemble(oracle, seeds, canonical(0.5))
    ensemble.advance(1)
    for name, p in ensemble.x.items():
        torch.testing.assert_close(p, start[name] - 0.5 * gradients[name])


def test_bytes_are_those_of_inputs_and_results() -> None:
    graph = make_fx(lambda a, b: (a @ b).view(2, 15).exp())(A, B)
    # a, b, the product and its exponential in float32; views are free
    assert bytes_touched(graph) == 4 * (A.numel() + B.numel() + 2 * 3 * 5 * 2)


def test_a_convolution_is_noticed(make_oracle, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert has_convolution(traces(make_oracle("digits-conv"), 2, monkeypatch)[0])
    assert not has_convolution(traces(make_oracle("digits"), 2, monkeypatch)[0])


@pytest.mark.parametrize("task", ["digits", "digits-conv"])
def test_footprint_grows_with_the_batch(task, make_oracle) -> None:  # type: ignore[no-untyped-def]
    small, middle, large = (measure_footprint(make_oracle(task, Sampling(250, b))) for b in (4, 32, 250))
    assert small.bytes_per_replica < middle.bytes_per_replica < large.bytes_per_replica
    assert small.width >= middle.width >= large.width
    for footprint in (small, middle, large):
        assert footprint.width == 1 or (footprint.width > 0 and footprint.width % 2 == 0)
    # more than parameters, buffers and the update of both
    parameters = sum(p.numel() for p in make_oracle(task).model.parameters())
    assert small.bytes_per_replica > 4 * 4 * parameters


def test_convolutions_at_large_batch_go_one_by_one(make_oracle) -> None:  # type: ignore[no-untyped-def]
    assert measure_footprint(make_oracle("digits-conv", Sampling(250, 33))).width == 1
    assert measure_footprint(make_oracle("digits-conv", Sampling(250, 32))).width > 1
    assert measure_footprint(make_oracle("digits", Sampling(250, 33))).width > 1


def test_measuring_the_footprint_repeats_and_changes_nothing(make_oracle) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle("digits")
    before, rng = copy.deepcopy(oracle.model.state_dict()), torch.get_rng_state()
    assert measure_footprint(oracle) == measure_footprint(oracle)
    assert all(torch.equal(value, before[name]) for name, value in oracle.model.state_dict().items())
    assert all(p.grad is None for p in oracle.model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_compiling_pays_for_more_work_only() -> None:
    pays = [Footprint(10**6, 4).worth_compiling(steps) for steps in (1, 10**3, 10**5, 10**7)]
    assert pays == sorted(pays)
    assert not pays[0]
    assert pays[-1]
