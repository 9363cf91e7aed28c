"""The largest stable learning rate: the closed form against spectral radii, the simulated frontier against both."""

from __future__ import annotations

import json

import pytest

from lightball.dynamics.moments import spectral_radius
from lightball.errors import InputError
from lightball.theory import stability
from lightball.theory.stability import StabilitySettings, largest_stable_lr, run_stability

MOMENTA = (0.0, 0.5, 0.9)
QUICK = {"num_steps": 400, "replicas": 32, "resolution": 4e-3}


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


def test_a_longer_run_sees_slower_growth() -> None:
    short, long = (StabilitySettings(num_steps=k).blind for k in (200, 2000))
    assert short == pytest.approx(10 * long)


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
        ({"curvature": 0.0}, "curvature is 0; required is a finite number > 0"),
        ({"num_steps": 10}, "num_steps is 10; required are at least 100, for growth to show"),
        ({"replicas": 1}, "replicas is 1; required are at least 16, for growth to stand out of noise"),
        ({"resolution": 0.0}, "resolution is 0; required is a number between 0 and 1: try 0.001"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StabilitySettings(**options)
