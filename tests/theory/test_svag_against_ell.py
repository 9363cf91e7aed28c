"""`lightball theory svag`: terms and gaps fall as 1/ℓ, where they should, in the formulas and in the simulation."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from lightball.dynamics.weak_error import WeakError
from lightball.errors import InputError
from lightball.theory.svag import Gap, SvagResult, SvagSettings, run_svag

QUICK = SvagSettings(ells=(1, 2, 4, 8), trajectories=4_000)


@pytest.fixture(scope="module")
def result() -> SvagResult:
    return run_svag(QUICK)


def local_order(error: WeakError) -> float:
    local = error.order().local
    assert local is not None
    return local.order


def far_from_exact(gap: Gap) -> list[float]:
    """Distances in standard errors."""
    assert gap.simulated is not None
    found = gap.simulated
    exact = dict(zip(gap.exact.etas, gap.exact.errors, strict=True))
    columns = zip(found.etas, found.errors, found.standard_errors, strict=True)
    return [abs(error - exact[eta]) / se for eta, error, se in columns]


def test_exact_gaps_fall_as_1_over_ell() -> None:
    """By hand at the end, where losses are stationary: ½ Σ ησ² [1/(2 − ηh/ℓ) − 1/(2 − ηh/19ℓ)], for β = 0.9."""
    settings = SvagSettings(trajectories=0, horizon=150, ells=(1, 4, 64))
    result = run_svag(settings)
    for one in (result.largest, result.final):
        assert local_order(one.exact) == pytest.approx(1, abs=0.05)
        assert one.simulated is None
    for eta, error in zip(result.final.exact.etas, result.final.exact.errors, strict=True):
        by_hand = sum(0.75 * (1 / (2 - 1.5 * h * eta) - 1 / (2 - 1.5 * h * eta / 19)) for h in (1.0, 0.1))
        assert error == pytest.approx(by_hand, rel=1e-4)


def test_a_memory_that_lasts_as_long_in_time_keeps_them_apart() -> None:
    """The negative control: SGDM then tends to another equation."""
    result = run_svag(SvagSettings(trajectories=0, memory="time"))
    assert local_order(result.largest.exact) == pytest.approx(0, abs=0.01)
    assert result.largest.exact.errors[-1] > 0.4


def test_the_simulation_agrees_with_the_exact_gaps(result: SvagResult) -> None:
    """Eight gaps within 4 standard errors: a false alarm at a fresh seed with probability below 1e-3."""
    for gap in (result.largest, result.final):
        assert max(far_from_exact(gap)) < 4
        assert gap.simulated is not None
        # Control: the simulation tells the gap at one ℓ from that at the next.
        exact = gap.exact.errors
        others = zip(gap.simulated.errors, gap.simulated.standard_errors, exact[1:], strict=False)
        assert max(abs(error - other) / se for error, se, other in others) > 4


def test_of_the_terms_only_the_curvature_induced_one_falls(result: SvagResult) -> None:
    """By hand at x₀ = (1, 1), η = 1.5: −η Σ h², ½ η² Σ h³/ℓ and ½ η² Σ h; measured within 4 standard errors."""
    assert result.descent == pytest.approx(-1.5 * 1.01)
    for term in result.terms:
        assert term.curvature == pytest.approx(0.5 * 1.5**2 * 1.001 / term.ell)
        assert term.noise == pytest.approx(0.5 * 1.5**2 * 1.1)
        assert abs(term.measured_curvature.mean - term.curvature) < 4 * term.measured_curvature.se
        assert abs(term.measured_noise.mean - term.noise) < 4 * term.measured_noise.se
        assert 4 * term.measured_curvature.se < 0.05
        assert 4 * term.measured_noise.se < 0.05


def test_losses_along_the_way(result: SvagResult) -> None:
    for curves in result.curves:
        assert curves.times[0] == 0
        assert curves.times[-1] == pytest.approx(30)
        for name in ("SGD", "SGDM"):
            assert curves.exact[name][0] == pytest.approx(0.55)
            for exact, found in zip(curves.exact[name][1:], curves.simulated[name][1:], strict=True):
                assert abs(exact - found.mean) < 5 * found.se


def test_the_same_seed_gives_the_same_gaps() -> None:
    quick = SvagSettings(ells=(1, 2), trajectories=40, horizon=6)
    one, same, other = (run_svag(replace(quick, seed=seed)).largest.simulated for seed in (1, 1, 2))
    assert one == same != other


def test_json(result: SvagResult) -> None:
    content = result.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert [term["ell"] for term in content["terms"]] == [1, 2, 4, 8]
    for gap in content["gaps"].values():
        assert [point["ell"] for point in gap["exact"]] == [1, 2, 4, 8, 16, 32, 64]
        assert [point["ell"] for point in gap["simulated"]] == [1, 2, 4, 8]
        assert set(gap["simulated"][0]) == {"ell", "gap", "se", "used"}


def test_beyond_stability_there_is_an_answer() -> None:
    """SGD's loss grows past what float64 holds at ℓ = 1 and 2; SGDM's at 1 as well, at η = 30."""
    content = run_svag(SvagSettings(lr=30, horizon=6_000, ells=(1, 2), trajectories=40)).to_json()
    json.dumps(content, allow_nan=False)
    exact = content["gaps"]["largest"]["exact"]
    assert [point["gap"] is None for point in exact[:2]] == [True, True]
    assert exact[-1]["gap"] is not None
    assert [point["gap"] for point in content["gaps"]["final"]["simulated"]] == [None, None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"momentum": 1.0},
            "momentum is 1; required is 0 < momentum < 1, since SGD without it is always beside it; 0.9 is usual",
        ),
        ({"memory": "both"}, "memory is 'both'; required is one of steps, time"),
        ({"spectrum": (1.0, 0.0)}, "spectrum is 1, 0; required are finite curvatures > 0: try 1,0.1"),
        ({"variance": math.nan}, "variance is nan; required is a finite number ≥ 0; 1 is the default"),
        ({"ells": (2, 2)}, "ells are 2, 2; required are two or more different numbers ≥ 1: try 1,2,4"),
        ({"ells": (0, 2)}, "ells are 0, 2; required are two or more different numbers ≥ 1: try 1,2,4"),
        ({"trajectories": 5}, "trajectories is 5; required are at least 40, or 0 for none"),
        ({"noise": "cauchy"}, "noise is 'cauchy'; required is one of gaussian, rademacher, student-t"),
        ({"lr": 40.0}, "the learning rate is 40 and the time 30; required is 0 < η ≤ T < ∞"),
        ({"lr": math.nan}, "the learning rate is nan and the time 30; required is 0 < η ≤ T < ∞"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        SvagSettings(**changes)  # type: ignore[arg-type]
    assert str(error.value) == message
