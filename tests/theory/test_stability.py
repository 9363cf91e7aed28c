"""The largest stable learning rate: the closed form against spectral radii, the simulated frontier against both."""

from __future__ import annotations

import json

import pytest

from lightball.dynamics.moments import spectral_radius
from lightball.errors import InputError
from lightball.oracles import Quadratic
from lightball.theory import stability
from lightball.theory.stability import StabilitySettings, largest_stable_lr, run_stability

MOMENTA = (0.0, 0.5, 0.9)
QUICK = {"num_steps": 400, "replicas": 64, "resolution": 4e-3}


@pytest.mark.parametrize("momentum", MOMENTA)
def test_the_closed_form_is_where_the_spectral_radius_reaches_one(momentum: float) -> None:
    limit = largest_stable_lr(momentum, 2.5)
    assert spectral_radius(2.5, 0.9999 * limit, momentum) < 1 < spectral_radius(2.5, 1.0001 * limit, momentum)


def test_the_simulated_frontier_holds_the_closed_form() -> None:
    for curvature in (1.0, 3.7):
        result = run_stability(StabilitySettings(MOMENTA, curvature, **QUICK))
        for one in result.results:
            assert one.low <= one.exact <= one.growing
            assert one.growing - one.stable <= QUICK["resolution"] * one.growing
            assert abs(one.simulated / one.exact - 1) < 5e-3


def test_the_simulation_does_not_know_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = run_stability(StabilitySettings((0.5,), **QUICK))
    monkeypatch.setattr(stability, "largest_stable_lr", lambda momentum, curvature=1.0: 5.0)
    misled = run_stability(StabilitySettings((0.5,), **QUICK))
    assert misled.results[0].growing == honest.results[0].growing
    assert not misled.results[0].agrees


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_what_is_too_slow_to_be_seen_follows_from_the_spectral_radius(momentum: float) -> None:
    """At the end of the blind stretch the mean square grows sixfold in half a probe."""
    settings = StabilitySettings((momentum,), num_steps=1000)
    rate = largest_stable_lr(momentum) + settings.blind(momentum)
    assert spectral_radius(1.0, rate, momentum) ** settings.probe_steps == pytest.approx(6, rel=1e-9)


def test_a_probe_lasts_ten_memories_of_the_buffer() -> None:
    assert StabilitySettings((0.5, 0.9), num_steps=400).probe_steps == 400
    assert StabilitySettings((0.5, 0.98), num_steps=400).probe_steps == 500
    assert StabilitySettings((0.9999,), num_steps=100_000).probe_steps == 100_000


@pytest.mark.parametrize("curvature", [1e-6, 1e6])
def test_a_long_memory_at_any_curvature(curvature: float) -> None:
    (one,) = run_stability(StabilitySettings((0.99,), curvature, num_steps=100, resolution=4e-3)).results
    assert one.agrees
    assert abs(one.simulated / one.exact - 1) < 5e-3


@pytest.mark.parametrize("variance", [1e-30, 1e30, 1e100, 1e200])
def test_the_scale_of_the_noise_does_not_matter(variance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where squares overflow in the middle of a probe, and what grows is finite at its end."""
    monkeypatch.setattr(stability, "Quadratic", lambda h, _, x0: Quadratic(h, variance, x0))
    for one in run_stability(StabilitySettings((0.0, 0.9), **QUICK)).results:
        assert one.agrees
        assert abs(one.simulated / one.exact - 1) < 5e-3


def test_at_few_replicas_noise_is_not_taken_for_growth() -> None:
    """50 frontiers, each with some three probes so near the limit that they grow fourfold by chance once in 10,000:
    one is wrong with a probability of 1.5 %. With 16 replicas one in 25 is."""
    momenta = (0.0, 0.3, 0.5, 0.7, 0.8)
    for seed in range(10):
        settings = StabilitySettings(momenta, num_steps=100, replicas=64, resolution=4e-3, seed=seed)
        assert all(one.agrees for one in run_stability(settings).results)


def test_the_finest_resolution_comes_to_an_end() -> None:
    (one,) = run_stability(StabilitySettings((0.0,), num_steps=100, replicas=64, resolution=1e-12)).results
    assert 0 < one.growing - one.stable <= 1e-12 * one.growing


def test_json_is_plain() -> None:
    value = json.loads(json.dumps(run_stability(StabilitySettings((0.0, 0.5), **QUICK)).to_json(), allow_nan=False))
    assert [one["momentum"] for one in value["results"]] == [0.0, 0.5]
    low, high = value["results"][1]["limit"]
    assert low < value["results"][1]["exact"] < high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momenta": (-0.1,)}, "momentum is -0.1; required is 0 ≤ momentum < 1: try 0.9"),
        ({"momenta": ()}, r"momenta are \[\]; required is one or more, each once"),
        ({"curvature": 0.0}, r"curvature is 0; required is a number from 1e-100 to 1e\+100: try 1"),
        ({"num_steps": 10}, "num_steps is 10; required are at least 100, for growth to show"),
        ({"replicas": 63}, "replicas is 63; required are at least 64, for growth to stand out of noise"),
        ({"resolution": 0.0}, "resolution is 0; required is a number from 1e-12 to below 1: try 0.001"),
        ({"resolution": 1e-20}, "resolution is 1e-20; required is a number from 1e-12 to below 1: try 0.001"),
        (
            {"momenta": (0.9999,)},
            "momentum 0.9999 forgets in 10,000 steps, .* ask for 100000 steps, or choose a smaller",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StabilitySettings(**options)
