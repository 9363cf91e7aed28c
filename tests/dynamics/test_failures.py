"""Replicas that diverge: when that is seen, what is measured, and that the others do not notice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lightball.dynamics import Ensemble, Stepper
from lightball.errors import InputError
from lightball.oracles import MinibatchOracle, Quadratic, Sampling, Seeded
from lightball.rules import canonical

DECAY = 1.0  # weights grow by |1 − lr| at each step: divergence at a known pace
SAMPLING = Sampling(200, 20)
LR = [0.05, 1e3, 0.1, 30.0, 1e9]
MOMENTUM = [0.0, 0.0, 0.9, 0.5, 0.0]
NUM_STEPS = 44


def ensemble_of(oracle: MinibatchOracle, members: Sequence[int], stepper: Stepper | None = None) -> Ensemble:
    lr, momentum = torch.tensor([LR[i] for i in members]), torch.tensor([MOMENTUM[i] for i in members])
    return Ensemble(oracle, list(members), canonical(lr, momentum, DECAY), stepper=stepper)


class Spy:
    """A stepper that notes how many replicas each call moves."""

    def __init__(self, oracle: MinibatchOracle | Seeded) -> None:
        self.oracle = oracle
        self.stepper = Stepper(oracle)
        self.widths: list[int] = []

    def __call__(self, x, states, sample, hyper) -> Tensor:  # type: ignore[no-untyped-def]
        self.widths.append(len(sample))
        return self.stepper(x, states, sample, hyper)


def first_failure(losses: list[float]) -> int:
    return next((k for k, loss in enumerate(losses) if not math.isfinite(loss)), -1)


@pytest.mark.parametrize("piece", [NUM_STEPS, 7])
def test_failure_is_seen_where_a_plain_loop_sees_it(piece, make_oracle, plain_loop) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle("digits", SAMPLING)
    ensemble = ensemble_of(oracle, range(5))
    while ensemble.step < NUM_STEPS:
        ensemble.advance(min(piece, NUM_STEPS - ensemble.step))
    expected = [
        first_failure(plain_loop(oracle, seed, lr, momentum, NUM_STEPS, weight_decay=DECAY)[1])
        for seed, (lr, momentum) in enumerate(zip(LR, MOMENTUM, strict=True))
    ]
    assert ensemble.failed_at.tolist() == expected
    # the example is what it should be: failures in several epochs, and not at the first step
    assert expected[0] == expected[2] == -1
    assert min(expected[1], expected[3], expected[4]) > 0
    assert len({expected[i] // oracle.steps_per_epoch for i in (1, 3, 4)}) > 1


def test_failed_replicas_measure_nan_and_others_do_not_notice(make_oracle) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle("digits", SAMPLING)
    spy = Spy(oracle)
    ensemble = ensemble_of(oracle, range(5), spy)  # type: ignore[arg-type]
    ensemble.advance(NUM_STEPS)
    healthy = ensemble_of(oracle, [0, 2])
    healthy.advance(NUM_STEPS)
    losses = ensemble.measure(oracle.loss)
    assert losses.isnan().tolist() == [False, True, False, True, True]
    torch.testing.assert_close(losses[[0, 2]], healthy.measure(oracle.loss), rtol=1e-5, atol=0)
    # three of five have failed, so they are no longer computed
    assert ensemble.rows.tolist() == [0, 2]
    for name, p in ensemble.x.items():
        assert len(p) == len(ensemble.states[name]["momentum_buffer"]) == 2
        torch.testing.assert_close(p, healthy.x[name], rtol=1e-3, atol=1e-5)
    assert spy.widths[0] == 5
    assert spy.widths[-1] == 2
    assert len(spy.widths) == NUM_STEPS
    assert spy.widths == sorted(spy.widths, reverse=True)


def test_fewer_than_half_stay_among_the_others(make_oracle) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle("digits", SAMPLING)
    ensemble = ensemble_of(oracle, [0, 2, 4])
    ensemble.advance(NUM_STEPS)
    assert ensemble.rows.tolist() == [0, 1, 2]
    assert ensemble.measure(oracle.loss).isnan().tolist() == [False, False, True]


def test_nothing_is_computed_when_all_have_failed() -> None:
    oracle = Seeded(Quadratic(1.0, 0.01, torch.ones(2)), steps_per_epoch=10)
    spy = Spy(oracle)
    ensemble = Ensemble(oracle, [0, 1], canonical(torch.tensor([1e4, 1e5]), 0.0), stepper=spy)  # type: ignore[arg-type]
    ensemble.advance(1000)
    assert ensemble.step == 1000
    assert len(spy.widths) == 10  # the epoch in which both failed
    assert not len(ensemble.rows)
    # |1 − lr|ᵏ squared passes 3.4e38, the largest float32, at k = 38.5 / (2 × 4) and 38.5 / (2 × 5)
    assert ensemble.failed_at.tolist() == [5, 4]
    losses = ensemble.measure(oracle.loss)
    assert losses.shape == (2,)
    assert losses.isnan().all()


def test_a_measurement_has_a_row_for_every_replica_in_order() -> None:
    oracle = Seeded(Quadratic(1.0, 0.01, torch.ones(2)), steps_per_epoch=10)
    ensemble = Ensemble(oracle, [0, 1, 2], canonical(torch.tensor([1e5, 0.1, 1e5]), 0.0))
    ensemble.advance(20)
    positions = ensemble.measure(lambda x: x["x"])
    assert positions.shape == (3, 2)
    assert ensemble.rows.tolist() == [1]
    assert torch.equal(positions[1], ensemble.x["x"][0])
    assert positions[[0, 2]].isnan().all()


def test_a_stepper_of_another_oracle_is_refused() -> None:
    one = Seeded(Quadratic(1.0, 0.01, torch.ones(2)))
    other = Seeded(Quadratic(2.0, 0.01, torch.ones(2)))
    with pytest.raises(InputError, match="the stepper belongs to another oracle"):
        Ensemble(one, [0], canonical(0.1), stepper=Stepper(other))
