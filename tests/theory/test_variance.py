"""Variance of updates and displacements: closed forms against exact moments, the simulation against closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from lightball.dynamics.moments import exact_moments
from lightball.errors import InputError
from lightball.oracles import Quadratic
from lightball.theory.variance import (
    VarianceSettings,
    displacement_ratio,
    run_variance,
    update_limit,
    update_ratio,
)

STEPS = [1, 2, 10, 200]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_closed_forms_are_those_of_the_update_rule(momentum: float) -> None:
    noise = Quadratic(0.0, 1.0, torch.zeros(1, dtype=torch.float64))
    sgdm, sgd = (exact_moments(noise, 0.3, b, num_steps=200, record_at=STEPS).covariance for b in (momentum, 0.0))
    ratios = (sgdm.diagonal(dim1=-2, dim2=-1) / sgd.diagonal(dim1=-2, dim2=-1)).numpy()
    np.testing.assert_allclose(displacement_ratio(momentum, STEPS), ratios[:, 0], rtol=1e-9)
    np.testing.assert_allclose(update_ratio(momentum, STEPS), ratios[:, 1], rtol=1e-9)


def test_the_folklore_and_its_answer() -> None:
    assert update_limit(0.9) == pytest.approx(0.1 / 1.9)
    assert displacement_ratio(0.9, [10**6])[0] == pytest.approx(1, abs=1e-4)
    assert update_ratio(0.9, [10**6])[0] == pytest.approx(update_limit(0.9))


def test_simulated_intervals_hold_the_closed_forms() -> None:
    """95 % intervals of four ratios, each over 20 independent seeds: of one of the four 6 or more of 20 miss with a
    probability of 0.03 %, of any of them with at most 0.13 %."""
    misses = np.zeros(4, dtype=int)
    for seed in range(20):
        result = run_variance(VarianceSettings((0.5, 0.9), num_steps=60, trajectories=1000, seed=seed))
        misses += [not ratios[-1].agrees for one in result.results for ratios in (one.update, one.displacement)]
    assert misses.max() < 6
    # Control: a form that is a tenth off is seen.
    of_last = result.results[-1].displacement[-1]
    assert not of_last.low < 1.1 * of_last.exact < of_last.high


def test_json_is_plain_and_complete() -> None:
    result = run_variance(VarianceSettings((0.9,), num_steps=20, trajectories=200))
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    (one,) = value["results"]
    assert one["momentum"] == 0.9
    assert [point["steps"] for point in one["update"]] == list(result.steps)
    last = one["displacement"][-1]
    assert last["ci95"][0] < last["simulated"] < last["ci95"][1]
    assert math.isclose(last["exact"], displacement_ratio(0.9, [20])[0])


def test_momenta_that_agree_in_six_digits_are_told_apart() -> None:
    both = run_variance(VarianceSettings((0.9, 0.9 + 1e-9), num_steps=20, trajectories=200)).results
    assert both[0].update[-1].simulated != both[1].update[-1].simulated
    assert [one.update[-1].agrees for one in both] == [True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momenta": (1.0,)}, "momentum is 1; required is 0 ≤ momentum < 1: try 0.9"),
        ({"momenta": (0.5, 0.5)}, r"momenta are \[0.5, 0.5\]; required is one or more, each once"),
        ({"num_steps": 1}, "num_steps is 1; required are at least 2"),
        ({"trajectories": 10}, "trajectories is 10; required are at least 100 for an interval"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VarianceSettings(**options)
