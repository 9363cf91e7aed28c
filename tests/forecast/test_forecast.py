"""Forecasts: exact on quadratics, right about real runs, and honest about where they end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lightball.dynamics import exact_moments
from lightball.errors import InputError
from lightball.forecast import forecast, value_map
from lightball.forecast.cases import cases_of
from lightball.forecast.local import beyond_tangent, mean_change
from lightball.forecast.measured import measured_value
from lightball.oracles import Quadratic, build
from lightball.probe import Estimate, Probe, SpectralMeasure, look_ahead, probe, supervised
from lightball.rules import canonical, kernel
from lightball.workloads import load

CURVATURE = torch.tensor([-0.02, 0.05, 0.5, 2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([0.3, 1.0, 2.0, 0.5], dtype=torch.float64)
START = torch.tensor([0.3, 1.0, -2.0, 0.5], dtype=torch.float64)


class Bowl(nn.Module):
    """½ Σ h x² + v·x for an example v."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(START.clone())

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return 0.5 * (CURVATURE * self.x**2).sum() + noise @ self.x


def bowl_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).mean()


def bowl_probe(**options: object) -> Probe:
    """Of the bowl, with its covariance exact instead of estimated."""
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * COVARIANCE.sqrt()
    noise -= noise.mean(dim=0)
    found = probe(Bowl(), bowl_loss, list(noise.split(4)), curvature_batches=10, num_steps=4, **options)
    exact = SpectralMeasure(CURVATURE.numpy()[None], COVARIANCE.numpy()[None])
    return replace(found, noise=exact)


@pytest.mark.parametrize(
    ("rate", "momentum", "steps"), [(0.01, 0.9, 100), (0.4, 0.9, 50), (0.9, 0.99, 200), (0.3, 0.0, 20)]
)
def test_on_a_quadratic_with_gaussian_noise_it_is_the_exact_expectation(
    rate: float, momentum: float, steps: int
) -> None:
    batch_size = 8
    problem = Quadratic(CURVATURE, COVARIANCE, START)
    said = forecast(bowl_probe(), rate, momentum, batch_size=batch_size, num_steps=steps)
    for beta, losses in ((0.0, said.sgd), (momentum, said.sgdm)):
        exact = exact_moments(problem, rate, beta, num_steps=steps, noise_scale=1 / batch_size).loss.numpy()
        np.testing.assert_allclose(losses, exact[said.steps], rtol=1e-10, atol=1e-10)
    assert said.value.value == pytest.approx(said.sgd[-1] - said.sgdm[-1], rel=1e-9, abs=1e-12)
    assert said.from_lag + said.from_noise == pytest.approx(said.value.value, rel=1e-9, abs=1e-12)


def test_the_optimizers_momentum_goes_on_where_it_was() -> None:
    """Without noise, against the rule itself from a buffer of its own."""
    buffer = torch.tensor([0.2, -0.4, 0.1, 0.7], dtype=torch.float64)
    found = replace(bowl_probe(buffer={"x": buffer}), noise=SpectralMeasure(np.zeros((1, 1)), np.zeros((1, 1))))
    said = forecast(found, 0.2, 0.9, batch_size=8, num_steps=40)
    assert said.warm
    x, state = START, {"momentum_buffer": buffer}
    for _ in range(40):
        x, state = kernel.step(x, CURVATURE * x, state, canonical(0.2, 0.9))
    assert said.sgdm[-1] == pytest.approx(float(0.5 * (CURVATURE * x**2).sum()), abs=1e-10)
    cold = forecast(found, 0.2, 0.9, batch_size=8, num_steps=40, warm=False)
    assert cold.sgd[-1] == pytest.approx(said.sgd[-1], abs=1e-12)
    assert abs(cold.sgdm[-1] - said.sgdm[-1]) > 1e-3


def test_shuffled_batches_make_less_noise() -> None:
    found = bowl_probe()
    independent, shuffled = (
        forecast(found, 0.2, batch_size=8, num_steps=50, sampling=sampling) for sampling in ("iid", "shuffle")
    )
    assert 0 < shuffled.from_noise < independent.from_noise
    assert shuffled.from_lag == independent.from_lag


def test_a_map_holds_what_forecasts_say() -> None:
    found = bowl_probe()
    for sampling in ("iid", "shuffle"):
        seen = value_map(found, (0.05, 0.2), (4, 8, 20), num_steps=30, sampling=sampling)
        assert seen.value.shape == seen.valid.shape == (2, 3)
        for row, rate in enumerate((0.05, 0.2)):
            for column, size in enumerate((4, 8, 20)):
                said = forecast(found, rate, batch_size=size, num_steps=30, sampling=sampling)
                assert seen.value[row, column] == pytest.approx(said.value.value, rel=1e-9)
                assert seen.valid[row, column] == said.validity.valid
                assert seen.reasons[row][column] == said.validity.reason


@pytest.fixture(scope="module")
def trained() -> tuple[Probe, Probe, nn.Module]:
    """The digits perceptron after an epoch: a probe, the same with its path ahead, and the model."""
    digits = load("digits")
    model = build(digits.model, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    for inputs, targets in zip(digits.train.inputs.split(64), digits.train.targets.split(64), strict=True):
        optimizer.zero_grad()
        digits.loss(model(inputs), targets).mean().backward()
        optimizer.step()
    data = list(zip(digits.train.inputs.split(64), digits.train.targets.split(64), strict=True))
    loss = supervised(digits.loss)
    now = probe(model, loss, data, num_steps=10)
    whole = [(digits.train.inputs, digits.train.targets)]
    return now, look_ahead(now, model, loss, whole, 5.0, noise_data=data, noise_points=3), model


@pytest.mark.parametrize("batch_size", [16, 256])
def test_it_is_right_about_real_runs_where_a_quadratic_is_not(
    trained: tuple[Probe, Probe, nn.Module], batch_size: int
) -> None:
    """50 steps at η = 0.1 halve the loss; the quadratic alone knows that it does not know."""
    now, ahead, model = trained
    real = measured_value(
        load("digits"), model, [0.1], batch_size=batch_size, num_steps=50, fewest_pairs=8, most_pairs=8
    )[0.1, 50]
    assert real.standard_error < 0.1 * abs(real.mean)
    said = forecast(ahead, 0.1, batch_size=batch_size, num_steps=50)
    assert said.validity.valid, said.validity.reason
    assert said.value.value == pytest.approx(real.mean, rel=0.25)
    assert said.sgd[-1] == pytest.approx(real.sgd, rel=0.05)
    assert said.sgdm[-1] == pytest.approx(real.sgdm, rel=0.05)
    local = forecast(now, 0.1, batch_size=batch_size, num_steps=50)
    assert not local.validity.valid
    assert "further than one quadratic can be trusted" in local.validity.reason


@pytest.mark.parametrize(
    ("rate", "steps", "batch_size", "reason"),
    [
        (0.2, 200, 64, "look further ahead"),
        (0.49, 10, 64, "stability"),
        (0.1, 50, 1, "noise raises the loss by"),
    ],
)
def test_it_says_where_it_ends(
    trained: tuple[Probe, Probe, nn.Module], rate: float, steps: int, batch_size: int, reason: str
) -> None:
    validity = forecast(trained[1], rate, batch_size=batch_size, num_steps=steps).validity
    assert not validity.valid
    assert reason in validity.reason


def test_what_the_tangent_misses_is_known_of_the_quadratic() -> None:
    """Tangent and what is beyond it are the exact difference of SGDM and SGD, at a memory that is not short."""
    found = bowl_probe()
    positive = found.gradient.nodes > 0
    bent = replace(found, gradient=SpectralMeasure(found.gradient.nodes, found.gradient.weights * positive))
    cases = cases_of(bent, [0.3], [8], 0.9, 20, "iid")
    record = (0, 7, 20)
    exact = mean_change(bent, cases, 0.9, False, record) - mean_change(bent, cases, 0.0, False, record)
    for place, step in enumerate(record):
        time, memory = 0.3 * step, 0.3 * 0.9 * (1 - 0.9**step) / 0.1

        def tangent(h: np.ndarray, time: float = time, memory: float = memory) -> np.ndarray:
            ahead = 1 - h * time
            return (memory * ahead + 0.5 * memory**2 * h * ahead**2) * np.exp(-2 * h * time)

        missed = beyond_tangent(found, cases, record)[place, 0]
        assert bent.gradient.integral(tangent) + missed == pytest.approx(exact[place, 0], rel=1e-9, abs=1e-12)
    assert abs(missed) > 0.1 * abs(exact[-1, 0])


def test_negative_curvature_that_runs_away_is_named() -> None:
    """Along h = −0.02 the quadratic falls for ever; in a flow time of 160 it has gained e^{6.4}."""
    far = replace(bowl_probe(), loss=1e6)  # so that the descent is no share of the loss worth naming
    assert "negative curvature runs away" in forecast(far, 0.4, batch_size=8, num_steps=400).validity.reason
    assert "negative curvature" not in forecast(far, 0.4, batch_size=8, num_steps=5).validity.reason


def test_a_path_without_the_momentum_that_the_probe_was_given_is_not_mixed_with_it(
    trained: tuple[Probe, Probe, nn.Module],
) -> None:
    ahead = trained[1]
    warm = bowl_probe(buffer={"x": START})
    mixed = replace(warm, path=ahead.path)
    for ask in (
        lambda **options: forecast(mixed, 0.1, batch_size=8, num_steps=10, **options),
        lambda **options: value_map(mixed, [0.1], [8], num_steps=10, **options),
    ):
        with pytest.raises(InputError, match="its path ahead was followed without"):
            ask()
        assert ask(warm=False) is not None


def test_the_interval_is_the_spread_of_what_vectors_say_of_a_known_noise() -> None:
    """Vectors of one shape differ by their norms alone, and these say nothing: their mean is known to be tr Σ."""
    found = bowl_probe()
    rows = np.outer([0.2, 1.0, 1.8], COVARIANCE.numpy())
    alike = replace(found, noise=SpectralMeasure(np.tile(CURVATURE.numpy(), (3, 1)), rows))
    said = forecast(alike, 0.2, batch_size=8, num_steps=30)
    trace = found.trace_noise
    assert said.value.high - said.value.value == pytest.approx(
        abs(said.from_noise) * (trace.high - trace.low) / 2 / trace.value, rel=1e-6
    )


def test_without_noise_nothing_is_uncertain() -> None:
    silent = replace(
        bowl_probe(), noise=SpectralMeasure(np.zeros((2, 1)), np.zeros((2, 1))), trace_noise=Estimate(0.0, 0.0, 0.0, 8)
    )
    said = forecast(silent, 0.05, batch_size=8, num_steps=3)
    assert said.value.low == said.value.value == said.value.high


def test_json_has_all_of_it(trained: tuple[Probe, Probe, nn.Module]) -> None:
    said = forecast(trained[1], 0.1, batch_size=64, num_steps=50)
    told = said.to_json()
    assert told["value"] == said.value.value
    assert told["valid"] is True
    assert len(told["steps"]) == len(told["sgd"]) == len(told["sgdm"]) == 51
    diverging = forecast(trained[0], 50.0, batch_size=64, num_steps=400).to_json()
    assert diverging["value"] is None
    assert diverging["valid"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effective_lr": 0.0}, "effective_lr is 0.0, but must be a finite number above 0"),
        ({"effective_lr": float("nan")}, "effective_lr is nan"),
        ({"momentum": 1.0}, "momentum is 1.0, but must be from 0 up and below 1"),
        ({"batch_size": 0}, "batch_size is 0, but must be a whole number from 1 to the 40 examples"),
        ({"batch_size": 41}, "batch_size is 41"),
        ({"effective_lr": "0.1"}, "effective_lr is '0.1'"),
        ({"num_steps": float("inf")}, "num_steps is inf"),
        ({"num_steps": 0}, "num_steps is 0, but must be a whole number from 1 up"),
        ({"sampling": "with"}, "sampling is 'with', but must be 'shuffle'"),
        ({"warm": True}, "the probe was given no buffer"),
    ],
)
def test_bad_input_is_one_line(change: dict[str, object], message: str) -> None:
    asked: dict[str, object] = {"effective_lr": 0.1, "momentum": 0.9, "batch_size": 8, "num_steps": 10}
    with pytest.raises(InputError, match=message):
        forecast(bowl_probe(), **(asked | change))  # type: ignore[arg-type]


def test_effects_that_cancel_have_no_known_sign_but_a_known_size(trained: tuple[Probe, Probe, nn.Module]) -> None:
    """Between the batch size at which the lag prevails and the one at which noise does, they cancel."""
    sizes = range(1, 1000, 3)
    seen = value_map(trained[1], [0.1], list(sizes), num_steps=40)
    cancelling = [i for i, reason in enumerate(seen.reasons[0]) if "nearly cancel" in reason]
    assert cancelling
    said = [forecast(trained[1], 0.1, batch_size=sizes[i], num_steps=40) for i in cancelling[:2]]
    for one in said:
        assert not one.validity.valid
        assert one.validity.bound == pytest.approx(abs(one.from_lag) + abs(one.from_noise))
    assert np.isfinite(seen.bound[0, cancelling]).all()
