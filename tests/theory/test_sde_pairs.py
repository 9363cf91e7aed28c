"""Who approaches which SDE: the orders that `lightball theory svag --sde` shows."""

from __future__ import annotations

import json

import pytest

from lightball.errors import InputError
from lightball.theory.sde import SdeResult, SdeSettings, run_sde


@pytest.fixture(scope="module")
def result() -> SdeResult:
    return run_sde(SdeSettings(etas=(1 / 16, 1 / 32, 1 / 64), trajectories=1_000))


def test_orders_are_1_or_0(result: SdeResult) -> None:
    """Orders between the two smallest rates; their 95 % intervals tell 1 from 0. Fixed seed."""
    assert {(pair.algorithm, pair.equation): pair.expected for pair in result.pairs} == {
        ("SGD", "first order"): 1,
        ("SGD", "underdamped"): 0,
        ("SGDM, β = 0.9", "first order"): 0.5,
        ("SVAG(4)", "first order"): 1,
        ("SVAG(4)", "underdamped"): 0,
        ("SGDM, β = 1 − 2η", "first order"): 0,
        ("SGDM, β = 1 − 2η", "underdamped"): 1,
    }
    for pair in result.pairs:
        assert pair.order is not None
        low, high = pair.order.ci95
        if pair.is_bound:
            assert pair.algorithm == "SGDM, β = 0.9"
            assert pair.order.order > 0.5
        elif pair.expected:
            assert 0.3 < low < 1 < high, pair
        else:
            assert low < 0.2, pair
            assert high < 0.7, pair


def test_svag_is_ell_times_closer_than_sgd(result: SdeResult) -> None:
    """(1/4 − 1/16)/(1 − 1/16) = 1/5, since the SDE has 16 steps in one of SGD; noise allows 20 %."""
    errors = {pair.algorithm: pair.error.errors for pair in result.pairs if pair.equation == "first order"}
    for sgd, svag in zip(errors["SGD"], errors["SVAG(4)"], strict=True):
        assert svag == pytest.approx(sgd / 5, rel=0.2)


def test_json_of_pairs(result: SdeResult) -> None:
    content = result.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert [point["eta"] for point in content["pairs"][0]["points"]] == [1 / 16, 1 / 32, 1 / 64]


def test_what_has_no_order_is_refused() -> None:
    with pytest.raises(InputError) as error:
        SdeSettings(etas=(0.1,))
    assert str(error.value) == (
        "there are fewer than two learning rates; an order needs two or more: try 0.1,0.05,0.025"
    )
    with pytest.raises(InputError) as error:
        SdeSettings(trajectories=3)
    assert str(error.value) == "trajectories is 3; required are at least 40"
    with pytest.raises(InputError) as error:
        run_sde(SdeSettings(damping=40.0))
    assert str(error.value) == (
        "damping × effective_lr is 2.5; required is a number in (0, 1], since momentum is 1 minus it"
    )
