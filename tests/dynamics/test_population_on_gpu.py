"""Populations on a GPU: captured steps do what launched ones do. Skipped without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightball.dynamics.population import Arm, simulate
from lightball.errors import InputError
from lightball.oracles import Quadratic, seed_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STEPS, TRAJECTORIES = 40, 1000
ARMS = {"sgdm": Arm(0.1, 0.9), "scheduled": Arm(np.linspace(0.2, 0.01, STEPS), np.linspace(0, 0.95, STEPS))}
COORDINATES = {str(i): lambda x, m, i=i: x["x"][:, i] for i in range(2)}


def quadratic() -> Quadratic:
    cuda = {"dtype": torch.float64, "device": "cuda"}
    return Quadratic(torch.tensor([1.0, 0.3], **cuda), 1.0, torch.ones(2, **cuda))


def test_captured_steps_are_a_literal_loop_over_the_same_draws() -> None:
    oracle = quadratic()
    moments = simulate(oracle, ARMS, STEPS, TRAJECTORIES, COORDINATES, device="cuda", width=TRAJECTORIES)
    generator = torch.Generator("cuda").manual_seed(seed_of(use="population", seed=0, chunk=0))
    samples = [oracle.draw(TRAJECTORIES, generator) for _ in range(STEPS)]
    for number, arm in enumerate(ARMS.values()):
        lr, beta = np.broadcast_to(arm.effective_lr, STEPS), np.broadcast_to(arm.momentum, STEPS)
        x = oracle.start(TRAJECTORIES)["x"]
        m = torch.zeros_like(x)
        for k, sample in enumerate(samples):
            m = beta[k] * m + (1 - beta[k]) * oracle.noisy_gradient({"x": x}, sample)[1]["x"]
            x = x - lr[k] * m
        np.testing.assert_allclose(moments.mean[number, -1], x.mean(0).cpu().numpy(), rtol=1e-9)


def test_each_chunk_has_noise_of_its_own_and_a_run_repeats() -> None:
    def run(width: int) -> np.ndarray:
        moments = simulate(quadratic(), ARMS, STEPS, TRAJECTORIES, COORDINATES, device="cuda", width=width)
        assert (moments.variance[:, 1:] > 0).all()
        return moments.mean[:, -1]

    assert (run(300) == run(300)).all()
    assert (run(300) != run(500)).all()


def test_what_cannot_be_captured_is_refused() -> None:
    class ReadsValues:
        def __getattr__(self, name: str) -> object:
            return getattr(quadratic(), name)

        def draw(self, num_replicas: int, generator: torch.Generator) -> torch.Tensor:
            sample = quadratic().draw(num_replicas, generator)
            return sample * float(sample.sum())

    with pytest.raises(InputError, match="cannot be captured as a CUDA graph"):
        simulate(ReadsValues(), ARMS, STEPS, TRAJECTORIES, COORDINATES, device="cuda")
