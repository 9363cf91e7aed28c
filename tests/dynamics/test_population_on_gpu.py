"""Populations on a GPU: captured steps do what launched ones do. Skipped without one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lightball.dynamics import Arm, Moments, coordinates, exact_moments, simulate
from lightball.errors import InputError
from lightball.oracles import FunctionOracle, LabelNoise, Quadratic, seed_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CARDS = [
    pytest.param(f"cuda:{card}", marks=pytest.mark.skipif(torch.cuda.device_count() <= card, reason="no such card"))
    for card in range(2)
]
STEPS, TRAJECTORIES = 40, 1000
GRID = (0, 1, 2, 17, STEPS)
SCHEDULED = Arm(np.linspace(0.2, 0.01, STEPS), np.linspace(0, 0.95, STEPS))
ARMS = {"sgd": Arm(0.1), "sgdm": Arm(0.1, 0.9), "scheduled": SCHEDULED}
# Of this many values, a mean is known to its standard error and a variance to a share of √(2/n). Beyond 5.5 of those
# lies one normal number in 26 million: a test of all arms, records and coordinates fails less than one seed in 100,000.
MANY, SIGMAS = 20_000, 5.5


def quadratic(device: str = "cuda") -> Quadratic:
    on = {"dtype": torch.float64, "device": device}
    return Quadratic(torch.tensor([1.0, 0.3], **on), 1.0, torch.ones(2, **on))


def network(device: str = "cuda") -> LabelNoise:
    """A matrix product, for which libraries keep a workspace for each stream."""
    features = torch.tensor([[0.3, 0.5], [0.2, -0.3], [0.1, 0.2]], dtype=torch.float64, device=device)
    x0 = torch.linspace(0.5, 1.5, 4, dtype=torch.float64, device=device)
    return LabelNoise(lambda x: (x[:, :2] ** 2 - x[:, 2:] ** 2) @ features.mT, torch.ones(3), 0.5, x0)


def literal(oracle: Quadratic | LabelNoise, device: str, coupled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances (arm, record, coordinate) of m' = β m + (1 − β) g, x' = x − η m', launched one by one."""
    names = [{}] * len(ARMS) if coupled else [{"arm": name} for name in ARMS]
    seen = []
    for arm, named in zip(ARMS.values(), names, strict=True):
        generator = torch.Generator(device).manual_seed(seed_of(use="population", seed=0, chunk=0, **named))
        lr, beta = np.broadcast_to(arm.effective_lr, STEPS), np.broadcast_to(arm.momentum, STEPS)
        x = oracle.start(TRAJECTORIES)["x"]
        m = torch.zeros_like(x)
        path = [x]
        for k in range(STEPS):
            sample = oracle.draw(TRAJECTORIES, generator)
            m = beta[k] * m + (1 - beta[k]) * oracle.noisy_gradient({"x": x}, sample)[1]["x"]
            x = x - lr[k] * m
            path.append(x)
        seen.append(torch.stack([path[k] for k in GRID]))
    values = torch.stack(seen).cpu().numpy()
    return values.mean(axis=2), values.var(axis=2, ddof=1)


@pytest.mark.parametrize("device", CARDS)
@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("make", [quadratic, network])
def test_captured_steps_are_a_literal_loop_over_the_same_draws(
    make: Callable[[str], Quadratic | LabelNoise], coupled: bool, device: str
) -> None:
    """On a card that is not the current one as well, which stays the current one."""
    oracle, current = make(device), torch.cuda.current_device()
    observables = coordinates(len(oracle.x0))
    moments = simulate(oracle, ARMS, STEPS, TRAJECTORIES, observables, GRID, coupled, device=device, width=TRAJECTORIES)
    mean, variance = literal(oracle, device, coupled)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-8, atol=1e-15)
    assert torch.cuda.current_device() == current
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    # Controls: trajectories moved, differ from each other, and so do arms.
    assert (moments.mean[:, 1:] != moments.mean[:, :1]).all()
    assert (moments.variance[:, 1:] > 0).all()
    assert (moments.mean[2, 1:] != moments.mean[1, 1:]).all()


@pytest.mark.parametrize("device", CARDS)
def test_moments_are_exact_ones_within_their_errors(device: str) -> None:
    """The law, whatever the generator: also of rates and momenta that change at each step."""
    moments = simulate(quadratic(device), ARMS, STEPS, MANY, coordinates(2), GRID, device=device, width=MANY // 2)
    for number, (name, arm) in enumerate(ARMS.items()):
        exact = exact_moments(quadratic("cpu"), arm.effective_lr, arm.momentum, num_steps=STEPS, record_at=GRID)
        mean = exact.mean[:, :2].numpy()
        variance = np.diagonal(exact.covariance.numpy(), axis1=1, axis2=2)[:, :2]
        error = np.sqrt(variance / MANY)
        assert (np.abs(moments.mean[number] - mean) <= SIGMAS * error + 1e-12).all(), name
        np.testing.assert_allclose(moments.variance[number], variance, rtol=SIGMAS * (2 / MANY) ** 0.5, atol=1e-12)


def test_each_replay_draws_anew() -> None:
    """A sum of k fresh numbers has k times the variance of one; of k equal ones it has k² times."""
    oracle = FunctionOracle(
        lambda x: 0 * x.sum(dim=1),
        lambda n, generator: torch.randn(n, 2, generator=generator, device=generator.device, dtype=torch.float64),
        torch.zeros(2, dtype=torch.float64, device="cuda"),
    )
    grid = [1, 2, 10, STEPS]
    moments = simulate(oracle, {"sgd": Arm(1.0)}, STEPS, MANY, coordinates(2), grid, device="cuda")
    expected = np.broadcast_to(np.array(grid, float)[:, None], (len(grid), 2))
    np.testing.assert_allclose(moments.variance[0], expected, rtol=SIGMAS * (2 / MANY) ** 0.5)
    assert (np.abs(moments.mean[0]) < SIGMAS * np.sqrt(expected / MANY)).all()


def test_a_gpu_and_the_cpu_agree_in_law_on_what_is_not_quadratic() -> None:
    def run(device: str) -> Moments:
        return simulate(network(device), ARMS, STEPS, MANY, coordinates(4), GRID, device=device, threads=1)

    one, other = run("cuda"), run("cpu")
    error = np.hypot(one.standard_error, other.standard_error)
    assert (np.abs(one.mean - other.mean) <= SIGMAS * error + 1e-12).all()
    # These values are not normal: variances get twice the room.
    np.testing.assert_allclose(one.variance, other.variance, rtol=2 * SIGMAS * (4 / MANY) ** 0.5, atol=1e-12)
    # Control: the draws are others.
    assert (one.mean[:, 1:] != other.mean[:, 1:]).all()


def test_coupled_arms_see_the_same_draws() -> None:
    twins = {"a": Arm(0.1, 0.5), "b": Arm(0.1, 0.5)}
    coupled, apart = (
        simulate(quadratic(), twins, STEPS, MANY, coordinates(2), GRID, coupled=coupled, device="cuda")
        for coupled in (True, False)
    )
    assert not coupled.difference_variance("a", "b").any()
    both = apart.variance[0, -1] + apart.variance[1, -1]
    np.testing.assert_allclose(apart.difference_variance("a", "b")[-1], both, rtol=SIGMAS * (2 / MANY) ** 0.5)


def test_each_chunk_has_noise_of_its_own_and_a_run_repeats() -> None:
    def run(width: int) -> np.ndarray:
        moments = simulate(quadratic(), ARMS, STEPS, TRAJECTORIES, coordinates(2), device="cuda", width=width)
        assert (moments.variance[:, 1:] > 0).all()
        return moments.mean[:, -1]

    assert (run(300) == run(300)).all()
    assert (run(300) != run(500)).all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_without_a_number_is_that_of_the_oracle() -> None:
    named, unnamed = (
        simulate(quadratic("cuda:1"), ARMS, STEPS, TRAJECTORIES, coordinates(2), device=device)
        for device in ("cuda:1", "cuda")
    )
    assert (named.mean == unnamed.mean).all()


def test_what_cannot_be_captured_is_refused_and_does_no_harm() -> None:
    class ReadsValues(Quadratic):
        def draw(self, num_replicas: int, generator: torch.Generator) -> torch.Tensor:
            sample = super().draw(num_replicas, generator)
            return sample * float(sample.sum())

    reading = ReadsValues(1.0, 1.0, torch.ones(2, dtype=torch.float64, device="cuda"))
    before = simulate(quadratic(), ARMS, STEPS, TRAJECTORIES, coordinates(2), device="cuda")
    with pytest.raises(InputError, match="cannot be captured as a CUDA graph"):
        simulate(reading, ARMS, STEPS, TRAJECTORIES, coordinates(2), device="cuda")
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    after = simulate(quadratic(), ARMS, STEPS, TRAJECTORIES, coordinates(2), device="cuda")
    assert (before.mean == after.mean).all()
