"""The rewritings of a traced step: none changes a bit, and each does what it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lightball.dynamics import Stepper, compiler_available
from lightball.dynamics.population.program import Program, quicken, split, widen_constants
from lightball.oracles import FunctionOracle, LabelNoise, Quadratic, SampledOracle
from lightball.rules import canonical, kernel

WIDTH = 33


def quadratic() -> Quadratic:
    return Quadratic(torch.tensor([1.0, 0.3, 2.0]), torch.tensor([1.0, 0.5, 0.1]), torch.tensor([1.0, -1.0, 0.5]))


def network() -> LabelNoise:
    features = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.1, 0.2]])
    return LabelNoise(lambda x: (x[:, :2] ** 2 - x[:, 2:] ** 2) @ features.mT, torch.ones(3), 0.5, torch.ones(4))


def written_in_place() -> FunctionOracle:
    """Noise that a user's code writes into a tensor of its own, place by place."""

    def noise(x: Tensor, z: Tensor) -> Tensor:
        scaled = torch.zeros_like(x)
        scaled[:, 0] = 0.5 * x[:, 1] * z[:, 0]
        scaled[:, 1] = z[:, 1] + x[:, 0]
        return scaled

    return FunctionOracle(
        lambda x: (x**2).sum(dim=1), lambda n, g: torch.randn(n, 2, generator=g), torch.ones(2), noise=noise
    )


def moved(oracle: SampledOracle, compile: bool | None) -> list[Tensor]:
    """x and m after three steps whose rates change; by the stepper as it is traced if ``compile`` is None."""
    generator = torch.Generator().manual_seed(0)
    x = oracle.start(WIDTH)
    states = {name: kernel.init(value) for name, value in x.items()}
    lr, momentum = torch.tensor(0.1), torch.tensor(0.9)
    hyper = canonical(lr, momentum)
    stepper = Stepper(oracle)
    program = None if compile is None else Program(oracle, x, states, oracle.draw(WIDTH, generator), hyper, compile)
    generator.manual_seed(1)
    for rate, beta in ((0.1, 0.9), (0.1, 0.9), (0.05, 0.0), (0.2, 0.5)):
        lr.fill_(rate)
        momentum.fill_(beta)
        sample = oracle.draw(WIDTH, generator)
        buffers = [state["momentum_buffer"] for state in states.values()]
        if program is None:
            stepper(x, states, sample, hyper)
        else:
            with torch.no_grad():
                program(sample, *x.values(), *buffers, *program.constants_of(lr, momentum, momentum))
    return [*x.values(), *buffers]


@pytest.mark.parametrize(
    "oracle", [quadratic(), network(), written_in_place()], ids=["quadratic", "network", "written in place"]
)
def test_a_program_moves_as_the_traced_step_to_the_bit(oracle: SampledOracle) -> None:
    for one, other in zip(moved(oracle, None), moved(oracle, compile=False), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not compiler_available(), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("oracle", [quadratic(), network()], ids=["quadratic", "network"])
def test_a_compiled_program_moves_alike_but_for_rounding(oracle: SampledOracle) -> None:
    for one, other in zip(moved(oracle, None), moved(oracle, compile=True), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_what_depends_on_the_last_inputs_alone_is_set_apart() -> None:
    def step(x: Tensor, y: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
        return x * (1 - rate.exp()), y + rate, x + y

    inputs = torch.rand(4), torch.rand(4), torch.tensor(0.3)
    constants_of, rest = split(make_fx(step)(*inputs), num_last=1)
    for one, other in zip(step(*inputs), rest(*inputs[:2], *constants_of(inputs[2])), strict=True):
        assert torch.equal(one, other)
    assert "exp" in constants_of.code
    assert "exp" not in rest.code


def test_short_constants_are_widened_and_others_are_not() -> None:
    short, long = torch.rand(3), torch.rand(100)

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x * short, y * long, x @ short, (x + short) * short

    inputs = torch.rand(5, 3), torch.rand(5, 100)
    graph = widen_constants(make_fx(step)(*inputs))
    shapes = [tuple(getattr(graph, node.target).shape) for node in graph.graph.nodes if node.op == "get_attr"]
    assert sorted(shapes) == [(3,), (5, 3), (5, 3), (5, 3), (100,)]
    for one, other in zip(step(*inputs), graph(*inputs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("step", "in_place"),
    [
        (lambda x, y: (x.copy_(x + y),), True),
        # old x is read after new x is known
        (lambda x, y: ((new := x + y), (out := x * 2), x.copy_(new), out)[2:], False),
        # x is read through a view, in another order
        (lambda x, y: (x.copy_(x.t() + y),), False),
        (lambda x, y: (x.copy_(x @ y),), False),
    ],
    ids=["sum", "read later", "view", "product"],
)
def test_a_result_is_written_in_place_only_where_nobody_reads_what_it_replaces(step, in_place) -> None:  # type: ignore[no-untyped-def]
    x, y = torch.rand(4, 4), torch.rand(4, 4)
    graph = quicken(make_fx(step)(x.clone(), y))
    one, other = x.clone(), x.clone()
    expected, got = step(one, y), graph(other, y)
    assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert ("out =" in graph.code) == in_place
