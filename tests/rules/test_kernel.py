"""The kernel against torch.optim.SGD, against itself under vmap and tracing, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lightball.errors import InputError
from lightball.rules.kernel import Hyperparameters, canonical, init, step, validate

NUM_STEPS = 8


@st.composite
def hyperparameters(draw: st.DrawFn) -> Hyperparameters:
    momentum = draw(st.just(0.0) | st.floats(0.01, 0.99))
    nesterov = momentum > 0 and draw(st.booleans())
    return Hyperparameters(
        lr=draw(st.floats(0.0, 1.0)),
        momentum=momentum,
        dampening=0.0 if nesterov else draw(st.just(0.0) | st.floats(0.01, 0.99)),
        weight_decay=draw(st.just(0.0) | st.floats(0.0, 0.1)),
        nesterov=nesterov,
    )


def run(x: Tensor, gradients: Tensor, state: dict[str, Tensor], hyper: Hyperparameters) -> Tensor:
    trajectory = []
    for g in gradients:
        x, state = step(x, g, state, hyper)
        trajectory.append(x)
    return torch.stack(trajectory)


def run_torch(x: Tensor, gradients: Tensor, hyper: Hyperparameters) -> Tensor:
    parameter = torch.nn.Parameter(x.clone())
    optimizer = torch.optim.SGD([parameter], **vars(hyper))
    trajectory = []
    for g in gradients:
        parameter.grad = g.clone()
        optimizer.step()
        trajectory.append(parameter.detach().clone())
    return torch.stack(trajectory)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(hyper=hyperparameters(), seed=st.integers(0, 2**31), size=st.integers(1, 40))
def test_bit_equal_to_torch(hyper: Hyperparameters, seed: int, size: int) -> None:
    x, gradients = noise(size, seed=seed), noise(NUM_STEPS, size, seed=seed + 1)
    assert torch.equal(run(x, gradients, {}, hyper), run_torch(x, gradients, hyper))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(replicas=st.lists(hyperparameters(), min_size=1, max_size=4), empty=st.booleans())
def test_tensor_hyperparameters_are_numbers_per_replica(replicas: list[Hyperparameters], empty: bool) -> None:
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
    stacked = Hyperparameters(**{name: torch.tensor([getattr(h, name) for h in replicas]) for name in names})
    x, gradients = noise(len(replicas), 2, 3), noise(NUM_STEPS, len(replicas), 2, 3, seed=1)
    together = run(x, gradients, {} if empty else init(x), stacked)
    for r, hyper in enumerate(replicas):
        alone = run(x[r], gradients[:, r], {} if empty else init(x[r]), hyper)
        torch.testing.assert_close(together[:, r], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.float32])
def test_canonical_form(dtype: torch.dtype | None) -> None:
    lr, momentum = 0.3, 0.8
    x, gradients = noise(5, dtype=torch.float64), noise(NUM_STEPS, 5, seed=1, dtype=torch.float64)
    hyper = canonical(lr, momentum)
    if dtype is not None:
        hyper = canonical(torch.tensor(lr, dtype=dtype), torch.tensor(momentum, dtype=dtype))
    got = run(x, gradients, init(x), hyper)
    m = torch.zeros_like(x)
    for g, x_new in zip(gradients, got, strict=True):
        m = momentum * m + (1 - momentum) * g
        x = x - lr * m
        # a float32 hyperparameter is cast to float64, so it carries float32's rounding
        torch.testing.assert_close(x_new, x, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=1e-13)


def test_number_beside_tensor_keeps_double_precision() -> None:
    x, g = noise(2, 3, dtype=torch.float64), noise(2, 3, seed=1, dtype=torch.float64)
    beta = torch.tensor([0.9, 0.9], dtype=torch.float64)
    expected = step(x, g, {"momentum_buffer": g}, Hyperparameters(0.1, 0.9, 0.7, 0.3))[0]
    for momentum, dampening in ((beta, 0.7), (0.9, torch.full_like(beta, 0.7))):
        got = step(x, g, {"momentum_buffer": g}, Hyperparameters(0.1, momentum, dampening, 0.3))[0]
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=1e-15)


def test_first_step_of_the_empty_state_is_undampened() -> None:
    x, g = torch.zeros(3), torch.ones(3)
    hyper = canonical(0.1, momentum=0.75)
    torch.testing.assert_close(step(x, g, {}, hyper)[0], -0.1 * g)
    torch.testing.assert_close(step(x, g, init(x), hyper)[0], -0.1 * 0.25 * g)


def test_momentum_zero_touches_no_buffer() -> None:
    x, g = noise(3), noise(3, seed=1)
    state = init(x)
    assert step(x, g, {}, Hyperparameters(0.1))[1] == {}
    assert step(x, g, state, Hyperparameters(0.1))[1] is state
    assert "momentum_buffer" in step(x, g, {}, Hyperparameters(0.1, momentum=torch.tensor(0.0)))[1]


def test_inputs_stay_as_they_were_and_the_buffer_is_no_view() -> None:
    x, g = noise(3), noise(3, seed=1)
    x_before, g_before = x.clone(), g.clone()
    _, state = step(x, g, {}, Hyperparameters(0.1, momentum=0.9, weight_decay=0.0))
    before = state["momentum_buffer"].clone()
    step(x, g, state, Hyperparameters(0.1, momentum=0.9, weight_decay=0.1, nesterov=True))
    assert torch.equal(x, x_before)
    assert torch.equal(g, g_before)
    assert torch.equal(state["momentum_buffer"], before)
    g.zero_()
    assert torch.equal(state["momentum_buffer"], g_before)


REPLICAS = Hyperparameters(
    lr=torch.tensor([0.1, 0.2]),
    momentum=torch.tensor([0.0, 0.9]),
    dampening=torch.tensor([0.0, 0.9]),
    weight_decay=torch.tensor([0.0, 0.1]),
    nesterov=torch.tensor([False, True]),
)


def step_of_replicas(
    x: Tensor, g: Tensor, b: Tensor, lr: Tensor, mu: Tensor, damp: Tensor, wd: Tensor, nest: Tensor
) -> tuple[Tensor, Tensor]:
    x, state = step(x, g, {"momentum_buffer": b}, Hyperparameters(lr, mu, damp, wd, nest))
    return x, state["momentum_buffer"]


def compiled(*arguments: Tensor) -> tuple[Tensor, Tensor]:
    return torch.compile(step_of_replicas, fullgraph=True, backend="aot_eager")(*arguments)


def traced(*arguments: Tensor) -> tuple[Tensor, Tensor]:
    return make_fx(step_of_replicas)(*arguments)(*arguments)


@pytest.mark.parametrize("transform", [traced, compiled, torch.vmap(step_of_replicas)])
def test_traceable(transform) -> None:
    arguments = (noise(2, 3), noise(2, 3, seed=1), noise(2, 3, seed=2), *vars(REPLICAS).values())
    for got, expected in zip(transform(*arguments), step_of_replicas(*arguments), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "hyper",
    [
        Hyperparameters(0.0),
        Hyperparameters(0.1, 0.9, nesterov=True),
        canonical(1.0, 0.9, 1e-4),
        Hyperparameters(torch.tensor([0.1, 1.0]), torch.tensor([0.0, 0.9])),
    ],
)
def test_valid(hyper: Hyperparameters) -> None:
    validate(hyper)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        (Hyperparameters(-0.1), "lr is -0.1; required is a finite number ≥ 0; 0.1 is a usual start"),
        (Hyperparameters(math.inf), "lr is inf; required is a finite number ≥ 0; 0.1 is a usual start"),
        (Hyperparameters(math.nan), "lr is nan; required is a finite number ≥ 0; 0.1 is a usual start"),
        (
            Hyperparameters(torch.tensor([0.1, -1.0])),
            "lr is -1; required is a finite number ≥ 0; 0.1 is a usual start",
        ),
        (
            Hyperparameters(0.1, momentum=1.0),
            "momentum is 1; required is 0 ≤ momentum < 1; use 0 for SGD, 0.9 for the usual momentum",
        ),
        (
            Hyperparameters(0.1, 0.9, dampening=1.0),
            "dampening is 1; required is 0 ≤ dampening < 1; use 0 for the usual sum form",
        ),
        (
            Hyperparameters(0.1, weight_decay=-1e-4),
            "weight_decay is -0.0001; required is a finite number ≥ 0; use 0 for none",
        ),
        (
            Hyperparameters(0.1, nesterov=True),
            "nesterov got momentum 0 and dampening 0; it requires momentum > 0 and dampening 0: set those, "
            "or nesterov=False",
        ),
        (
            Hyperparameters(0.1, torch.tensor([0.5, 0.25]), 0.5, nesterov=torch.tensor([False, True])),
            "nesterov got momentum [0.5, 0.25] and dampening 0.5; it requires momentum > 0 and dampening 0: "
            "set those, or nesterov=False",
        ),
    ],
)
def test_refusals(hyper: Hyperparameters, message: str) -> None:
    with pytest.raises(InputError) as error:
        validate(hyper)
    assert str(error.value) == message
