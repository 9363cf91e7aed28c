"""The path ahead: exact on quadratics, and a tangent that real runs of SGD and SGDM follow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.probe import PathPoint, Probe, look_ahead, probe, supervised

CURVATURE = torch.tensor([0.05, 0.5, 2.0], dtype=torch.float64)


class Bowl(nn.Module):
    """½ Σ h x², with a noise of its own in each example: the gradient of example v is h x + v."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return 0.5 * (CURVATURE * self.x**2).sum() + noise @ self.x


def bowl_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).mean()


def noise_batches() -> list[torch.Tensor]:
    noise = torch.randn(32, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return list((noise - noise.mean(dim=0)).split(4))


def seen(horizon: float, model: nn.Module | None = None, **options: object) -> tuple[Probe, nn.Module]:
    model = model or Bowl()
    before = probe(model, bowl_loss, noise_batches(), curvature_batches=8, num_steps=3, noise_vectors=4)
    return look_ahead(before, model, bowl_loss, noise_batches(), horizon, tolerance=1e-3, **options), model


@pytest.fixture(scope="module")
def bowl() -> tuple[Probe, nn.Module]:
    return seen(8.0)


def at(points: tuple[PathPoint, ...], time: float) -> PathPoint:
    return min(points, key=lambda point: abs(point.time - time))


def test_on_a_quadratic_the_tangent_is_its_closed_form(bowl: tuple[Probe, nn.Module]) -> None:
    """g = h x e^{−ht} and q = t h g, so that the lag is Σ g² (1 − th)."""
    after, model = bowl
    start = model.x.detach()
    assert {0.125, 0.5, 2.0, 8.0} <= {round(point.time, 9) for point in after.path}
    for point in after.path:
        g = CURVATURE * start * torch.exp(-CURVATURE * point.time)
        lead = g * (1 - point.time * CURVATURE)
        assert point.loss == pytest.approx(float(0.5 * (g**2 / CURVATURE).sum()), abs=2e-3)
        assert point.gradient_norm_squared == pytest.approx(float(g @ g), rel=1e-2, abs=1e-3)
        assert point.lag == pytest.approx(float(g @ lead), rel=3e-2, abs=1e-3)
        assert point.lag_curvature == pytest.approx(float(lead @ (CURVATURE * lead)), rel=5e-2, abs=1e-3)
        assert point.warm_lag is None
    assert after.path[-1].sharpness == pytest.approx(2.0, rel=1e-3)


def test_a_buffer_that_holds_the_gradient_does_not_lag() -> None:
    """p = q's partner: with m₀ = g the start-up part g − p is 0, and what is left is −q."""
    model = Bowl()
    after, _ = seen(4.0, model, buffer={"x": CURVATURE * model.x.detach()})
    for point in after.path:
        g = CURVATURE * model.x.detach() * torch.exp(-CURVATURE * point.time)
        assert point.warm_lag == pytest.approx(-float(g @ (point.time * CURVATURE * g)), rel=2e-2, abs=1e-3)


def test_noise_is_measured_at_its_places_and_grows_nowhere_on_a_quadratic(bowl: tuple[Probe, nn.Module]) -> None:
    after, _ = bowl
    noisy = [point for point in after.path if point.noise is not None]
    assert [round(point.time, 9) for point in noisy] == [0.0, 0.125, 0.5, 2.0, 8.0]
    noise = torch.cat(noise_batches())
    trace = float((noise**2).sum(dim=1).mean())
    for point in noisy:
        assert point.noise is not None
        assert point.noise.trace_noise.low <= trace <= point.noise.trace_noise.high
        assert point.noise.growth == pytest.approx(0.0, abs=1e-6)
        assert point.noise.excess == pytest.approx(1.0, abs=1e-6)


def test_a_network_follows_the_tangent() -> None:
    """Noise-free SGD and SGDM of a small net: their difference is τ·lag + ½τ²·bend; the local quadratic is far off."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    inputs = torch.randn(64, 4, dtype=torch.float64)
    targets = inputs[:, :3].argmax(dim=1)
    data = list(zip(inputs.split(16), targets.split(16), strict=True))
    loss = supervised(nn.functional.cross_entropy)
    rate, momentum, steps = 0.05, 0.9, 120
    before = probe(model, loss, data, curvature_batches=4)
    after = look_ahead(before, model, loss, data, rate * steps, tolerance=1e-3)
    found = []
    for beta in (0.0, momentum):
        runner = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()
        runner.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(runner.parameters(), lr=rate * (1 - beta), momentum=beta)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(runner(inputs), targets).backward()
            optimizer.step()
        found.append(nn.functional.cross_entropy(runner(inputs), targets).item())
    memory = rate * momentum * (1 - momentum**steps) / (1 - momentum)
    end = at(after.path, rate * steps)
    lost = end.gradient_norm_squared - end.lag
    assert end.loss - rate / 2 * lost == pytest.approx(found[0], rel=2e-3)
    assert memory * end.lag + 0.5 * memory**2 * end.lag_curvature == pytest.approx(found[1] - found[0], rel=0.1)
    assert before.loss - found[0] > 0.3  # far enough for the quadratic to be wrong


def test_looking_ahead_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    inputs = torch.randn(32, 3)
    data = list(zip(inputs.split(8), torch.arange(32).remainder(2).split(8), strict=True))
    loss = supervised(nn.functional.cross_entropy)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    now = probe(model, loss, data)
    look_ahead(now, model, loss, data, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_path_goes_into_json_and_back(bowl: tuple[Probe, nn.Module]) -> None:
    after, _ = bowl
    assert Probe.from_json(after.to_json()).to_json() == after.to_json()


@pytest.mark.parametrize("horizon", [0.0, -1.0, math.inf, math.nan, "far"])
def test_a_horizon_must_be_a_number_above_0(horizon: object) -> None:
    with pytest.raises(InputError, match=r"horizon is .*, but must be a number above 0"):
        seen(horizon)  # type: ignore[arg-type]


def test_a_probe_with_a_horizon_looks_ahead(bowl: tuple[Probe, nn.Module]) -> None:
    both = probe(Bowl(), bowl_loss, noise_batches(), curvature_batches=8, num_steps=3, noise_vectors=4, horizon=0.5)
    assert both.path[-1].time == 0.5
    assert both.path[-1].loss == pytest.approx(at(bowl[0].path, 0.5).loss, rel=1e-2)


def test_it_works_in_inference_mode(bowl: tuple[Probe, nn.Module]) -> None:
    with torch.inference_mode():
        after = look_ahead(bowl[0], Bowl(), bowl_loss, noise_batches(), 0.125, noise_points=1, noise_vectors=2)
    assert after.path[-1].time == 0.125
