"""`lightball theory schedule`: the averaged schedule against γ/(1 − β), and momenta written as text."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lightball.dynamics.weak_error import WeakError
from lightball.errors import InputError
from lightball.theory.momenta import momenta
from lightball.theory.schedule import RATES, Schedules, ScheduleSettings, run_schedule


@pytest.fixture(scope="module")
def default() -> Schedules:
    return run_schedule(ScheduleSettings())


def test_the_averaged_schedule_errs_at_most_half_as_much_at_every_rate(default: Schedules) -> None:
    assert len(default.ratios) == len(RATES)
    assert max(default.ratios) <= 0.5
    assert default.ratios[-1] < 0.02


def test_its_order_is_that_of_constant_schedules_and_not_that_of_the_naive_match(default: Schedules) -> None:
    averaged, naive, constant = (match.error.order() for match in (default.averaged, default.naive, default.constant))
    for found in (averaged, naive, constant):
        assert all(found.used)
        assert found.local is not None
        assert found.fit is not None
    assert averaged.local.ci95[0] <= 1 <= averaged.local.ci95[1]  # type: ignore[union-attr]
    assert constant.local.ci95[0] <= 1 <= constant.local.ci95[1]  # type: ignore[union-attr]
    assert averaged.fit.order == pytest.approx(constant.fit.order, abs=0.03)  # type: ignore[union-attr]
    assert averaged.fit.ci95[0] > 0.95  # type: ignore[union-attr]
    assert abs(naive.fit.order) < 0.03  # type: ignore[union-attr]


@pytest.mark.parametrize("momentum", ["restarts:10", "cycle:10:0.5,0.9"])
@pytest.mark.parametrize("schedule", ["constant", "warmup:0.1+cosine"])
def test_whatever_the_schedule_momentum_that_keeps_changing_needs_the_averaged_one(
    schedule: str, momentum: str
) -> None:
    found = run_schedule(ScheduleSettings(schedule, momentum, (2.0**-8, 2.0**-9, 2.0**-10)))
    assert found.ratios[-1] < 0.5
    assert found.averaged.error.order().fit.order > 0.8  # type: ignore[union-attr]
    assert found.naive.error.order().fit.order < 0.1  # type: ignore[union-attr]


def test_where_momentum_changes_slowly_both_matches_are_of_order_one() -> None:
    """Negative control, and the limit of the claim: γ/(1 − β) is then no worse."""
    found = run_schedule(ScheduleSettings("constant", "linear:0.5,0.9", (2.0**-8, 2.0**-9, 2.0**-10)))
    assert min(found.ratios) > 0.5
    for match in (found.averaged, found.naive):
        assert match.error.order().fit.order == pytest.approx(1.0, abs=0.06)  # type: ignore[union-attr]


def test_constant_schedules_need_no_averaging() -> None:
    found = run_schedule(ScheduleSettings("constant", "constant:0.8", (2.0**-6, 2.0**-7)))
    assert found.naive.error.errors == pytest.approx(found.constant.error.errors)


def test_json_and_the_run_that_is_shown(default: Schedules) -> None:
    content = default.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert [result["match"] for result in content["results"]] == ["averaged", "naive", "constant"]
    for result in content["results"]:
        assert [point["eta"] for point in result["points"]] == list(RATES)
        for point, x, square in zip(
            result["points"], result["observables"]["x"], result["observables"]["x²"], strict=True
        ):
            assert point["error"] == max(x, square)
    run = default.run
    assert run.lr.shape == run.averaged.shape == run.momentum.shape == (256,)
    assert run.lr.max() == run.eta == 2.0**-7
    assert run.lr.sum() == pytest.approx(run.averaged.sum(), rel=0.05)  # gradients move as far in total
    difference = np.abs(run.squares["averaged"] - run.squares["SGDM"]).max()
    assert difference == pytest.approx(default.averaged.errors["x²"].errors[0], rel=1e-9)


def test_what_diverges_has_an_answer() -> None:
    found = run_schedule(ScheduleSettings("constant", "constant:0.5", (3.0, 0.1), horizon=3000.0))
    assert found.ratios[0] == math.inf
    assert found.to_json()["ratios"][0] is None


@pytest.mark.parametrize("momentum", ["constant:0", "cycle:4:0,0"])
def test_without_momentum_nothing_errs_and_no_match_is_closer(momentum: str) -> None:
    found = run_schedule(ScheduleSettings(momentum=momentum, etas=(2.0**-6, 2.0**-7), trajectories=100))
    assert found.ratios == (1.0, 1.0)
    assert found.averaged.error.errors == found.naive.error.errors == (0.0, 0.0)
    assert found.averaged.simulated_error == found.averaged.error


def test_the_simulation_agrees_with_the_exact_errors(default: Schedules) -> None:
    """For each match and observable four independent 95 % intervals: 3 or more miss with a probability of 5e-4, in any
    of the four cases of 0.2 %. Their width tells the two matches apart."""

    def misses(simulated: WeakError, exact: WeakError) -> int:
        columns = zip(simulated.errors, simulated.standard_errors, exact.errors, strict=False)
        return sum(abs(error - known) > 1.96 * se for error, se, known in columns)

    assert default.averaged.simulated["x"].etas == RATES[:4]
    for match, other in ((default.averaged, default.naive), (default.naive, default.averaged)):
        for name, simulated in match.simulated.items():
            assert misses(simulated, match.errors[name]) < 3
        assert match.simulated_error is not None
        assert misses(match.simulated_error, match.error) < 3
        assert misses(match.simulated_error, other.error) >= 3


def test_the_seed_decides_and_no_trajectories_are_none() -> None:
    few = ScheduleSettings(etas=(2.0**-5, 2.0**-6), trajectories=50)
    one, same, other = (run_schedule(replace(few, seed=seed)).to_json()["results"] for seed in (1, 1, 2))
    assert one == same != other
    assert [point["eta"] for point in one[0]["simulated"]["x²"]] == [2.0**-5, 2.0**-6]
    none = run_schedule(replace(few, trajectories=0)).to_json()["results"]
    assert [result["simulated"] for result in none] == [None] * 3


def test_momenta() -> None:
    assert momenta("constant:0.9", 3).tolist() == [0.9, 0.9, 0.9]
    assert momenta("restarts:3", 7) == pytest.approx([0, 1 / 4, 2 / 5, 0, 1 / 4, 2 / 5, 0])
    assert momenta("cycle:4:0.5,0.9", 6).tolist() == [0.5, 0.5, 0.9, 0.9, 0.5, 0.5]
    assert momenta("linear:0.5,0.9", 5) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fast", "unknown momentum 'fast'; valid are constant:0.9, restarts:20"),
        ("constant:x", "unknown momentum 'constant:x'"),
        ("linear:0.5", "unknown momentum 'linear:0.5'"),
        ("constant:1.0", "momentum 'constant:1.0' has the value 1; required is 0 ≤ β < 1"),
        ("restarts:1", "has the period '1'; required is a whole number of steps ≥ 2"),
        ("cycle:2.5:0.5,0.9", r"has the period '2\.5'"),
    ],
)
def test_bad_momenta(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        momenta(spec, 10)


def test_bad_rates() -> None:
    with pytest.raises(InputError, match=r"the rates are 0\.1; required are two or more different ones"):
        ScheduleSettings(etas=(0.1,))
    with pytest.raises(InputError, match="trajectories is 10; required are at least 40, or 0 for none"):
        ScheduleSettings(trajectories=10)
