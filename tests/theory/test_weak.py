"""`lightball theory weak`: measured orders against the paper's numbers and the theorem."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest

from lightball.errors import InputError
from lightball.theory.weak import Weak, WeakSettings, run_weak

ORDERS = {0.0: 0.98, 0.25: 0.71, 0.5: 0.44, 0.75: 0.17, 1.0: 0.00}


@pytest.fixture(scope="module")
def default() -> Weak:
    return run_weak(WeakSettings())


def test_local_orders_of_exact_errors_are_those_of_the_paper() -> None:
    found = run_weak(WeakSettings(trajectories=0)).to_json()["results"]
    for result in found:
        assert result["order"] == pytest.approx(ORDERS[result["alpha"]], abs=0.03)
        assert result["square"]["order"] == pytest.approx(ORDERS[result["alpha"]], abs=0.03)
        assert result["order"] == result["local"]["order"]
        assert result["theorem"] == (1 - result["alpha"]) / 2
        low, high = result["ci95"]
        assert low <= 1 - result["alpha"] <= high  # where the local orders tend
        assert result["simulated"] is None
    fits = [result["fit"]["order"] for result in found]
    assert fits == pytest.approx([0.85, 0.63, 0.37, 0.14, 0.00], abs=0.01)


def test_the_simulation_agrees_with_the_exact_errors(default: Weak) -> None:
    """On the whole grid, by 95 % intervals. For each α the 9 are independent: more than 3 miss with a probability of
    6e-4, for any of the five α's of 0.3 %."""
    results = default.to_json()["results"]

    def misses(simulated: list[dict[str, float]], exact: list[dict[str, float]]) -> int:
        assert [point["eta"] for point in simulated] == [point["eta"] for point in exact]
        pairs = zip(simulated, exact, strict=True)
        return sum(abs(one["error"] - other["error"]) > 1.96 * one["se"] for one, other in pairs)

    for result in results:
        assert misses(result["simulated"], result["points"]) <= 3
    # Control: the exact errors of the next α are refused.
    for result, following in pairwise(results):
        assert misses(result["simulated"], following["points"]) > 3


def test_json_is_what_the_format_says(default: Weak) -> None:
    content = default.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert [result["alpha"] for result in content["results"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    for result in content["results"]:
        assert {"alpha", "order", "ci95", "theorem", "points"} <= set(result)
        assert [point["eta"] for point in result["points"]] == [2.0**-k for k in range(4, 13)]
        for point in result["points"]:
            assert set(point) == {"eta", "error", "se", "used"}
            assert point["used"] is True


@pytest.mark.parametrize(("loss", "noise"), [("log-cosh", "student-t"), ("cosine", "rademacher")])
def test_other_losses_and_noises_keep_to_the_theorem(loss: str, noise: str) -> None:
    """Six intervals of at least 95 % each; the seed is fixed. Intervals exclude the orders of their neighbours."""
    etas = tuple(2.0**-k for k in range(6, 10))
    settings = WeakSettings((0.0, 0.5, 1.0), loss, noise, etas, trajectories=12_000)  # type: ignore[arg-type]
    found = {result["alpha"]: result for result in run_weak(settings).to_json()["results"]}
    for alpha in (0.0, 0.5):
        assert found[alpha]["order"] >= (1 - alpha) / 2
        assert found[alpha]["ci95"][0] > 0.1
        assert sum(point["used"] for point in found[alpha]["points"]) >= 3
    low, high = found[1.0]["ci95"]
    assert low < 0 < high < 0.1
    assert found[0.0]["ci95"][0] > found[0.5]["ci95"][1]


def test_points_that_noise_limits_are_named() -> None:
    settings = WeakSettings((0.0,), "log-cosh", etas=(2.0**-4, 2.0**-6, 2.0**-8), trajectories=300)
    points = run_weak(settings).to_json()["results"][0]["points"]
    assert [point["used"] for point in points] == [True, False, False]


def test_alphas_that_agree_in_six_digits_are_told_apart() -> None:
    one, other = (run_weak(WeakSettings((alpha,), trajectories=0)).results[0].error for alpha in (0.5, 0.5 + 1e-9))
    both = run_weak(WeakSettings((0.5, 0.5 + 1e-9), trajectories=0)).results
    assert [result.error for result in both] == [one, other]
    assert one != other


def test_beyond_one_nothing_is_proven() -> None:
    found = run_weak(WeakSettings((1.5,), trajectories=0)).to_json()["results"][0]
    assert found["theorem"] is None
    assert all(math.isfinite(point["error"]) for point in found["points"])


def test_rates_beyond_stability_have_an_answer() -> None:
    found = run_weak(WeakSettings((0.0,), etas=(3.0, 0.125, 0.0625), trajectories=100, horizon=2000.0)).to_json()
    assert [point["error"] is None for point in found["results"][0]["points"]] == [True, False, False]
    assert found["results"][0]["simulated"][0] == {"eta": 3.0, "error": None, "se": None, "used": False}
    assert found["results"][0]["order"] is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alphas": (-0.5,)}, "alpha is -0.5; required is a finite number ≥ 0"),
        ({"alphas": (math.inf,)}, "alpha is inf; required is a finite number ≥ 0"),
        ({"alphas": (math.nan,)}, "alpha is nan; required is a finite number ≥ 0"),
        ({"loss": "cubic"}, "loss is 'cubic'; required is one of quadratic, log-cosh, cosine"),
        ({"noise": "cauchy"}, "noise is 'cauchy'"),
        ({"etas": (0.1,)}, "the rates are 0.1; required are two or more different"),
        ({"etas": (0.1, 3.0)}, "up to T = 2"),
        ({"trajectories": 5}, "trajectories is 5; required are at least 40"),
        ({"trajectories": 0, "loss": "cosine"}, "only the quadratic has exact errors"),
    ],
)
def test_bad_settings(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeakSettings(**wrong)  # type: ignore[arg-type]


def test_alpha_so_large_that_momentum_is_one() -> None:
    with pytest.raises(InputError, match=r"alpha 40 makes the momentum 1 − ½ η\^α = 1 at η = 0.0625"):
        run_weak(WeakSettings((40.0,), trajectories=0))
