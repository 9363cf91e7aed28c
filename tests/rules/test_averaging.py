"""The averaged schedule against its definition, the kernel, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightball.errors import InputError
from lightball.rules import kernel
from lightball.rules.averaging import averaged_schedule

rates = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=25)
betas = st.floats(0.0, 0.95)


@st.composite
def rates_and_betas(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    lr = draw(rates)
    return np.array(lr), np.array(draw(st.lists(betas, min_size=len(lr), max_size=len(lr))))


def literal(lr: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    """The double sum as it is written."""
    steps = range(len(lr))
    return np.array(
        [(1 - momentum[j]) * sum(lr[s] * np.prod(momentum[j + 1 : s + 1]) for s in steps[j:]) for j in steps]
    )


@settings(deadline=None, derandomize=True)
@given(rates_and_betas())
def test_drop_is_the_double_sum(sequences: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(averaged_schedule(*sequences), literal(*sequences), rtol=1e-12, atol=1e-15)


@settings(deadline=None, derandomize=True)
@given(rates_and_betas())
def test_hold_is_a_long_run_of_the_last_values(sequences: tuple[np.ndarray, np.ndarray]) -> None:
    lr, momentum = sequences
    long = averaged_schedule(np.pad(lr, (0, 800), "edge"), np.pad(momentum, (0, 800), "edge"))
    held = averaged_schedule(lr, momentum, tail="hold")
    np.testing.assert_allclose(held, long[: len(lr)], rtol=1e-11, atol=1e-14)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(rates_and_betas(), st.data())
def test_is_the_total_displacement_of_a_unit_gradient(
    sequences: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    lr, momentum = sequences
    impulse = data.draw(st.integers(0, len(lr) - 1))
    x = torch.zeros((), dtype=torch.float64)
    state = kernel.init(x)
    for k, (eta, beta) in enumerate(zip(lr, momentum, strict=True)):
        g = torch.tensor(float(k == impulse), dtype=torch.float64)
        # As a tensor, momentum 0 empties the buffer; as a number it would leave it, as torch does.
        x, state = kernel.step(x, g, state, kernel.canonical(float(eta), torch.tensor(beta)))
    assert -float(x) == pytest.approx(averaged_schedule(lr, momentum)[impulse], rel=1e-12, abs=1e-15)


@given(rates, betas, st.floats(0.0, 5.0))
def test_linear_in_lr(lr: list[float], momentum: float, scale: float) -> None:
    for tail in ("drop", "hold"):
        together = averaged_schedule(scale * np.array(lr) + 1.0, momentum, tail)
        apart = scale * averaged_schedule(lr, momentum, tail) + averaged_schedule(np.ones(len(lr)), momentum, tail)
        np.testing.assert_allclose(together, apart, rtol=1e-11)


@given(st.floats(0.0, 10.0), betas, st.integers(1, 30))
def test_constant_rate_and_hold_gives_the_rate(lr: float, momentum: float, num_steps: int) -> None:
    got = averaged_schedule(np.full(num_steps, lr), momentum, tail="hold")
    np.testing.assert_allclose(got, lr, rtol=1e-12)


@given(st.floats(0.0, 10.0), betas, st.integers(1, 30))
def test_constant_rate_and_drop_loses_the_tail(lr: float, momentum: float, num_steps: int) -> None:
    remaining = num_steps - np.arange(num_steps)
    got = averaged_schedule(np.full(num_steps, lr), momentum)
    np.testing.assert_allclose(got, lr * (1 - momentum**remaining), rtol=1e-11, atol=1e-15)


@given(rates, betas)
def test_mass_is_conserved(lr: list[float], momentum: float) -> None:
    """Rates may move between steps; each η_s is shared out in full, but for gradients before the run."""
    shares = 1 - momentum ** (1 + np.arange(len(lr)))
    total = averaged_schedule(lr, momentum).sum()
    np.testing.assert_allclose(total, (np.array(lr) * shares).sum(), rtol=1e-11, atol=1e-14)


@given(rates)
def test_without_momentum_nothing_changes(lr: list[float]) -> None:
    assert averaged_schedule(lr, 0.0).tolist() == lr


@given(rates, betas)
def test_stays_between_the_extremes(lr: list[float], momentum: float) -> None:
    got = averaged_schedule(lr, momentum, tail="hold")
    assert got.min() >= min(lr) * (1 - 1e-12)
    assert got.max() <= max(lr) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, 0.9), "lr has shape (); required is one rate per step, shape (K,) with K ≥ 1"),
        (([], 0.9), "lr has shape (0,); required is one rate per step, shape (K,) with K ≥ 1"),
        (([0.1, 0.1], [0.9]), "momentum has shape (1,); required is one number or lr's shape (2,)"),
        (([0.1, -0.2], 0.9), "lr is -0.2; required is a finite number ≥ 0 at every step"),
        (([0.1, 0.1], [0.9, 1.0]), "momentum is 1; required is 0 ≤ momentum < 1 at every step"),
        (([0.1], float("nan")), "momentum is nan; required is 0 ≤ momentum < 1 at every step"),
        (
            ([0.1], 0.9, "cut"),
            "tail is 'cut'; required is 'drop' (the run ends) or 'hold' (the last values go on)",
        ),
    ],
)
def test_refusals(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError) as error:
        averaged_schedule(*arguments)
    assert str(error.value) == message
