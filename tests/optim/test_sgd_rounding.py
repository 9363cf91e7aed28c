"""Low-precision weights: unbiased stochastic rounding, Kahan compensation, and training that does not stall."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.optim import SGD, update
from lightball.optim.rounding import next_seed, round_stochastically

LOW = (torch.bfloat16, torch.float16)
BEYOND = 4.5  # standard errors; a sound rounding exceeds them once in 150,000 tests
NUM_DRAWS = 40_000


def values(dtype: torch.dtype) -> Tensor:
    """Normal and, for float16, subnormal magnitudes of both signs, between two neighbours in dtype."""
    magnitudes = [1.0003, 0.0617391, 3.1415927e-3, 123.4567]
    if dtype is torch.float16:
        magnitudes += [1.23456e-5, 4.4e-8, 2.0e-7]
    return torch.tensor([sign * x for x in magnitudes for sign in (1, -1)])


def excess(draws: Tensor, x: Tensor) -> Tensor:
    """How many standard errors the mean of draws (draw, value) is from x."""
    wide = draws.double()
    return (wide.mean(0) - x.double()).abs() / (wide.std(0) / len(draws) ** 0.5)


def many(x: Tensor) -> Tensor:
    return x.repeat(NUM_DRAWS, 1)


@pytest.mark.parametrize("dtype", LOW)
def test_stochastic_rounding_is_unbiased_and_goes_to_a_neighbour(dtype: torch.dtype) -> None:
    x = values(dtype)
    draws = round_stochastically(many(x), dtype, torch.Generator().manual_seed(1))
    assert draws.dtype is dtype
    assert excess(draws, x).max() < BEYOND
    below = torch.minimum(x.to(dtype).float(), draws.float().amin(0))
    for column, low in zip(draws.T, below, strict=True):
        assert len(column.unique()) == 2, low  # two neighbours, both drawn


@pytest.mark.parametrize("dtype", LOW)
def test_the_test_of_bias_finds_one(dtype: torch.dtype) -> None:
    """Negative control: the same draws, with one random bit too few at the top."""
    x = values(dtype)
    dropped = 16 if dtype is torch.bfloat16 else 13
    chance = torch.randint(0, 1 << (dropped - 1), many(x).shape, generator=torch.Generator().manual_seed(1))
    bits = (many(x).view(torch.int32) + chance.to(torch.int32)).bitwise_and_(-(1 << dropped))
    assert excess(bits.view(torch.float32).to(dtype), x)[:8].max() > BEYOND


@pytest.mark.parametrize("dtype", LOW)
def test_what_the_dtype_holds_stays_and_nan_stays_nan(dtype: torch.dtype) -> None:
    held = torch.tensor([0.0, 1.0, -2.5, 6.1035e-5, -(2.0**-24)]).to(dtype).float()
    nans = torch.tensor([0x7FFFFFFF, -1, 0x7FC00000, 0x7F800001], dtype=torch.int32).view(torch.float32)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        assert torch.equal(round_stochastically(held, dtype, generator).float(), held)
        assert round_stochastically(nans, dtype, generator).isnan().all()


def low_weights(dtype: torch.dtype, rounding: str, **options: Any) -> tuple[nn.Parameter, SGD]:
    p = nn.Parameter(torch.ones(64, 32, dtype=dtype))
    return p, SGD([p], lr=2.0**-13, rounding=rounding, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(("rounding", "end", "tolerance"), [("nearest", 1, 0), ("stochastic", 0.9375, 2e-3)])
def test_updates_below_half_a_unit(dtype: torch.dtype, rounding: str, end: float, tolerance: float) -> None:
    p, optimizer = low_weights(dtype, rounding)
    for _ in range(512):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert abs(p.detach().double().mean().item() - end) <= tolerance


def tolerance(dtype: torch.dtype) -> float:
    """Of equal gradients, the worst case for what is rounded to nearest: 10 steps' memory of half a unit each."""
    return 10 * torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}, {"maximize": True, "weight_decay": 0.1}])
def test_kahan_follows_float32(dtype: torch.dtype, options: dict[str, Any]) -> None:
    p, optimizer = low_weights(dtype, "kahan", **options)
    q = nn.Parameter(p.detach().float())
    reference = torch.optim.SGD([q], lr=2.0**-13, **options)
    for _ in range(512):
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
        optimizer.step(), reference.step()
    moved = (q - 1).abs().mean()
    held = p.double() + optimizer.state[p]["compensation"].double()
    assert moved > 0.03
    assert (held - q).abs().max() < tolerance(dtype) * moved
    assert optimizer.state[p]["compensation"].dtype is dtype


def test_momentum_of_stochastic_rounding_is_unbiased() -> None:
    """An average over 1/(1 − β) = 200 steps stalls in bfloat16 when rounded to nearest."""
    p, optimizer = low_weights(torch.bfloat16, "stochastic", momentum=0.995, convention="canonical")
    for _ in range(1500):
        p.grad = torch.ones_like(p)
        optimizer.step()
    buffer = optimizer.state[p]["momentum_buffer"]
    assert buffer.dtype is torch.bfloat16
    assert buffer.double().mean().item() == pytest.approx(1 - 0.995**1500, abs=5e-3)


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_weights_in_float32_are_as_without(rounding: Any) -> None:
    p, q = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    ours, theirs = SGD([p], lr=0.1, momentum=0.9, rounding=rounding), torch.optim.SGD([q], lr=0.1, momentum=0.9)
    for _ in range(3):
        p.grad = q.grad = torch.arange(5.0)
        ours.step(), theirs.step()
    assert torch.equal(p, q)
    assert ours.state[p].keys() == {"momentum_buffer"}


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_a_resumed_run_is_the_same_and_pieces_do_not_matter_to_kahan(
    rounding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    start = torch.randn(40, 30).bfloat16()
    gradients = torch.randn(6, 40, 30).bfloat16()

    def run(p: nn.Parameter, optimizer: SGD, steps: Tensor) -> Tensor:
        for g in steps:
            p.grad = g.clone()
            optimizer.step()
        return p.detach().clone()

    options: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "rounding": rounding, "seed": 7}
    whole = nn.Parameter(start.clone())
    end = run(whole, SGD([whole], **options), gradients)
    half = nn.Parameter(start.clone())
    first = SGD([half], **options)
    run(half, first, gradients[:3])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    monkeypatch.setattr(update, "_PIECE_ON_CPU", 64 if rounding == "kahan" else 1 << 18)
    second = SGD([half], **(options | {"seed": 99}))
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(run(half, second, gradients[3:]), end)


def test_every_parameter_has_a_stream_of_its_own_given_by_the_seed() -> None:
    ends = []
    for seed in (1, 1, 2):
        params = [nn.Parameter(torch.ones(300, dtype=torch.bfloat16)) for _ in range(3)]
        optimizer = SGD([{"params": params[:2]}, {"params": params[2:]}], lr=1e-3, rounding="stochastic", seed=seed)
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        ends.append(torch.stack([p.detach() for p in params]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    assert len(ends[0].unique(dim=0)) == 3


def test_a_state_of_torch_gets_streams_too() -> None:
    p = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = SGD([p], rounding="stochastic", seed=5)
    before = optimizer.state[p]["rounding_seed"]
    optimizer.load_state_dict(torch.optim.SGD([p]).state_dict())
    assert optimizer.state[p]["rounding_seed"] == before


def test_split_mix_64() -> None:
    """The generator's published first outputs from seed 1234567, of which torch takes the upper 63 bits."""
    assert next_seed(1234567) == 6457827717110365317 >> 1


def test_training_that_plain_bfloat16_stalls() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 16)
    y = x @ torch.randn(16, 1)
    losses = {}
    for dtype, rounding in (
        (torch.float32, "nearest"),
        *((torch.bfloat16, r) for r in ("nearest", "stochastic", "kahan")),
    ):
        torch.manual_seed(1)
        net = nn.Linear(16, 1).to(dtype)
        optimizer = SGD(net.parameters(), lr=1e-3, rounding=rounding)  # type: ignore[arg-type]
        for _ in range(700):
            optimizer.zero_grad()
            (net(x.to(dtype)).float() - y).square().mean().backward()
            optimizer.step()
        losses[dtype, rounding] = (net.float()(x) - y).square().mean().item()
    exact, nearest, stochastic, kahan = losses.values()
    assert nearest > 2 * exact
    assert stochastic == pytest.approx(exact, rel=0.1)
    assert kahan == pytest.approx(exact, rel=0.02)
