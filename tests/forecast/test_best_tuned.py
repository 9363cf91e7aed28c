"""Predictions of tuned runs, held against what `lightball compare` found on digits, and against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from advice_samples import DIGITS, DIGITS_CONV, phases_from, probe_of

from lightball.errors import InputError
from lightball.forecast.best_tuned import best_tuned
from lightball.forecast.critical import critical_batch_size
from lightball.forecast.path_loss import PathLoss
from lightball.forecast.phase import CurvePoint, Phase, Phases, Trial, as_phases
from lightball.forecast.transfer import memory_of
from lightball.stats import Verdict

# Verdicts of `lightball compare digits --batch-sizes 8,32,128,512` (24 epochs), and the batch size at which the gap of
# `lightball compare digits --batch-sizes 16,32,64,128` crosses its margin.
COMPARED = {8: Verdict.NO_VALUE, 32: Verdict.NO_VALUE, 128: Verdict.HELPS, 512: Verdict.HELPS}
CROSSING = 52.6


@pytest.mark.parametrize("until", [640, 320, 160])
def test_the_verdicts_on_digits_are_those_of_compare(until: float) -> None:
    phases = phases_from(DIGITS, until)
    found = {b: best_tuned(phases, 0.9, b, epochs=24) for b in COMPARED}
    assert {b: at.verdict for b, at in found.items()} == COMPARED
    assert all(at.valid for at in found.values())


def raised(by: float, until: float = np.inf) -> Phases:
    """Digits with a constant added to the loss, which changes no run."""
    return phases_from([(time, loss + by, *others) for time, loss, *others in DIGITS], until)


@pytest.mark.parametrize("by", [0.05, 0.1, 0.5, 2.0])
def test_a_constant_in_the_loss_never_turns_the_answer(by: float) -> None:
    found = {b: best_tuned(raised(by), 0.9, b, epochs=24) for b in COMPARED}
    assert all(at.verdict in (COMPARED[b], Verdict.UNDECIDED) for b, at in found.items())
    assert (found[32].verdict, found[128].verdict) == (Verdict.UNDECIDED, Verdict.HELPS)
    critical = critical_batch_size(raised(by), 0.9, epochs=24)
    assert critical.low < CROSSING / 2
    assert CROSSING / 1.5 < critical.high < 2 * CROSSING
    if by > 0.2:
        assert critical.reason.startswith("momentum may pay at 8 already")


def test_a_loss_that_is_not_positive_is_named_as_the_reason() -> None:
    found = best_tuned(raised(-1.0), 0.9, 32, epochs=24)
    assert (found.valid, found.difference) == (False, None)
    assert found.reason.startswith("the loss is not positive, -0.988 at its lowest")


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_that_decides_nothing_is_refused(margin: float) -> None:
    with pytest.raises(InputError, match="a finite number above 0 is required"):
        best_tuned(phases_from(DIGITS), 0.9, 32, epochs=24, margin=margin)
    with pytest.raises(InputError, match="a finite number above 0 is required"):
        critical_batch_size(phases_from(DIGITS), 0.9, epochs=24, margin=margin)


@pytest.mark.parametrize("until", [640, 320, 160])
def test_the_critical_batch_size_of_digits_is_within_a_factor_of_two(until: float) -> None:
    found = critical_batch_size(phases_from(DIGITS, until), 0.9, epochs=24)
    assert CROSSING / 2 < found.value < CROSSING * 2
    assert found.low < found.value < found.high


def test_losses_of_sgd_on_digits_are_of_the_measured_size() -> None:
    measured = {32: 0.0079, 64: 0.0303, 128: 0.0697, 512: 0.27}
    for batch_size, loss in measured.items():
        assert best_tuned(phases_from(DIGITS), 0.9, batch_size, epochs=24).sgd_loss == pytest.approx(loss, rel=0.9)


# SGD on the convolutional net, 100 steps at batch size 128: rate, mean loss of 3 seeds.
TRIED = [(0.051, 0.1286), (0.072, 0.0961), (0.102, 0.07), (0.144, 0.0545), (0.204, 0.0593), (0.289, 0.0494)]
TRIED += [(0.408, 0.0436), (0.577, 0.0726)]


def test_a_network_with_normalisation_stands_far_more_than_its_curvature_says_as_compare_finds_too() -> None:
    phases = replace(phases_from(DIGITS_CONV), trials=tuple(Trial(rate, 100, loss) for rate, loss in TRIED))
    found = {b: best_tuned(phases, 0.9, b, epochs=24) for b in (32, 64, 128)}
    assert found[32].verdict is found[64].verdict is Verdict.NO_VALUE
    assert found[128].difference < found[128].margin
    assert found[128].sgd_lr > 2.5 * 2 / 48.69
    assert found[128].sgd_loss == pytest.approx(0.0109, rel=0.9)
    assert best_tuned(replace(phases, trials=()), 0.9, 128, epochs=24).verdict is Verdict.HELPS  # from curvature alone


def power_law(limit: float, trace: float = 1e-6, examples: int = 100_000) -> Phases:
    """L = 1/T from T = 1 on."""
    curve = tuple(CurvePoint(time, 1 / time, limit) for time in np.geomspace(1, 1000, 13))
    at = probe_of(loss=0.1, curvatures=(limit,), noise=(trace,), training_examples=examples)
    return Phases((Phase("middle", 10.0, at),), curve)


def test_where_curvature_limits_both_the_losses_are_those_at_the_limits() -> None:
    found = best_tuned(power_law(2.0), 0.9, 1000, epochs=10, margin=1e-3)
    steps, rate = 1000, math.sqrt(8) / 2.0
    assert found.sgd_lr == pytest.approx(rate)
    assert found.sgdm_lr == pytest.approx(19 * rate)
    assert found.sgd_loss == pytest.approx(1 / (rate * steps), rel=1e-6)
    assert found.sgdm_loss == pytest.approx(1 / (19 * rate * (steps - 9)), rel=1e-6)
    assert found.difference == pytest.approx(found.sgd_loss - found.sgdm_loss)


def with_trials(speeds: dict[float, float], num_steps: int = 100) -> Phases:
    """Trials that came so far along L = 1/T, as shares of what their rates say."""
    trials = tuple(
        Trial(rate, num_steps, 1 / (speed * rate * num_steps) if speed else math.inf) for rate, speed in speeds.items()
    )
    return replace(power_law(2.0), trials=trials)


def test_trials_tell_how_soft_the_limit_is() -> None:
    # Useful rates 1, 1.8, 2.1, 0: the best two neighbours are 1.8 and 2.1.
    phases = with_trials({1.0: 1.0, 2.0: 0.9, 3.0: 0.7, 4.0: 0.0})
    found = best_tuned(phases, 0.9, 1000, epochs=10, margin=1e-3)
    assert found.sgd_lr == pytest.approx((1.8 + 2.1) / 2)
    assert found.sgdm_lr == pytest.approx(19 * math.sqrt(8) / 2.0)
    untried = best_tuned(power_law(2.0), 0.9, 1000, epochs=10, margin=1e-3)
    widths = [(at.high - at.low) / at.difference for at in (found, untried)]
    assert widths[0] < widths[1]


@pytest.mark.parametrize("speeds", [{1.0: 0.0}, {1.0: 0.2, 1.4: 0.0}, {1.0: 1.0, 1.4: 0.0}])
def test_trials_that_fail_leave_the_rate_that_is_stable(speeds: dict[float, float]) -> None:
    assert best_tuned(with_trials(speeds), 0.9, 1000, epochs=10, margin=1e-3).sgd_lr == pytest.approx(1.0)


def test_a_trial_that_ends_below_the_floor_went_as_far_as_its_rate_says() -> None:
    phases = replace(raised(0.5), trials=(Trial(0.5, 100, 0.4), Trial(0.9, 100, 0.4)))
    assert best_tuned(phases, 0.9, 512, epochs=24).sgd_lr == pytest.approx(0.7, rel=0.02)


def test_nothing_is_faster_than_the_path() -> None:
    phases = with_trials({1.0: 1.0, 1.2: 40.0})
    assert best_tuned(phases, 0.9, 1000, epochs=10, margin=1e-3).sgd_lr == pytest.approx(1.1)


def test_a_rate_that_sgd_stands_is_not_denied_to_momentum() -> None:
    phases = with_trials({30.0: 1.0, 40.0: 1.0})
    found = best_tuned(phases, 0.5, 1000, epochs=10, margin=1e-3)
    assert found.sgd_lr == pytest.approx(35.0)
    assert found.sgdm_lr == pytest.approx(35.0)


def test_where_noise_limits_both_there_is_no_gap() -> None:
    # 4BL/tr Σ = 4 · 10 · 0.1/100 = 0.04, far below √8/2.
    found = best_tuned(power_law(2.0, trace=100.0), 0.9, 10, epochs=1, margin=1e-3)
    assert found.sgd_lr == pytest.approx(0.04, rel=0.05)
    assert found.sgdm_lr == pytest.approx(found.sgd_lr, rel=0.05)
    assert abs(found.difference) < 0.05 * found.sgd_loss
    assert best_tuned(power_law(2.0, trace=1.0), 0.9, 10, epochs=1, margin=1e-3).difference > 0


def test_the_crossing_is_where_the_gap_is_the_margin() -> None:
    phases, margin = power_law(2.0), 2e-3
    found = critical_batch_size(phases, 0.9, epochs=10, margin=margin)
    below, above = (best_tuned(phases, 0.9, round(found.value * f), epochs=10, margin=margin) for f in (0.97, 1.03))
    assert below.difference < margin < above.difference


def test_a_longer_run_raises_the_critical_batch_size() -> None:
    values = [critical_batch_size(phases_from(DIGITS), 0.9, epochs=epochs).value for epochs in (12, 24, 48)]
    assert values == sorted(values)
    assert values[2] > 1.5 * values[1] > 2.25 * values[0] * 0.9


def test_less_momentum_gains_less() -> None:
    gaps = [best_tuned(phases_from(DIGITS), m, 128, epochs=24).difference for m in (0.1, 0.5, 0.9)]
    assert 0 < gaps[0] < gaps[1] < gaps[2]


def test_a_margin_that_nothing_reaches_is_never_crossed() -> None:
    found = critical_batch_size(phases_from(DIGITS), 0.9, epochs=24, margin=5.0)
    assert found.value is None
    assert found.reason.startswith("momentum does not pay up to a batch of")


def test_a_single_probe_says_nothing_of_a_run_and_says_why() -> None:
    found = best_tuned(as_phases(probe_of()), 0.9, 64, epochs=24)
    assert (found.verdict, found.valid, found.difference) == (Verdict.UNDECIDED, False, None)
    assert found.reason == "there is no loss curve of the run, only weights at one time: probe phases"
    assert critical_batch_size(as_phases(probe_of()), 0.9, epochs=24).reason == found.reason


def test_a_guess_far_beyond_the_curve_is_not_valid() -> None:
    found = best_tuned(phases_from(DIGITS, until=10), 0.9, 64, epochs=24)
    assert not found.valid
    assert "but the curve ends at 10: probe phases of a longer training" in found.reason
    assert found.verdict is Verdict.UNDECIDED


def test_a_run_as_short_as_momentum_remembers_is_not_valid() -> None:
    found = best_tuned(phases_from(DIGITS), 0.9, 1078, epochs=12)
    assert found.reason == "the run has 12 steps, no more than twice the memory of momentum, 10 steps"


def test_a_loss_that_does_not_fall_has_nothing_to_gain() -> None:
    flat = tuple(CurvePoint(time, 1.0, 1.0) for time in (0.0, 1.0, 10.0))
    found = best_tuned(Phases((Phase("middle", 1.0, probe_of()),), flat), 0.9, 64, epochs=24)
    assert not found.valid
    assert found.reason.startswith("the loss did not fall")


@pytest.mark.parametrize(
    ("batch_size", "epochs", "told"), [(2000, 24, "1078 training examples"), (8, 0, "epochs is 0")]
)
def test_bad_input_is_refused(batch_size: int, epochs: int, told: str) -> None:
    with pytest.raises(InputError, match=told):
        best_tuned(phases_from(DIGITS), 0.9, batch_size, epochs=epochs)


def test_a_power_law_is_continued_as_one() -> None:
    loss = PathLoss([CurvePoint(time, 3 * time**-1.5) for time in (0.0001, 1.0, 2.0, 4.0, 8.0)])
    times = np.array([1.0, 3.0, 8.0, 100.0])
    np.testing.assert_allclose(loss(times), 3 * times**-1.5, rtol=1e-12)


def test_between_points_and_before_the_first_the_loss_falls_from_one_to_the_next() -> None:
    loss = PathLoss([CurvePoint(time, value) for time, value in ((0.0, 2.0), (1.0, 1.0), (2.0, 1.2), (4.0, 0.5))])
    assert float(loss(0.5)) == 1.5
    assert float(loss(2.0)) == 1.0  # a rise is not believed
    found = loss(np.linspace(0, 50, 501))
    assert (np.diff(found) <= 1e-15).all()
    assert PathLoss([CurvePoint(0.0, 2.0), CurvePoint(1.0, 1.0), CurvePoint(2.0, 0.5)], tail=0.5)(8.0) > 0.125


def test_the_time_of_a_loss_is_when_it_is_reached() -> None:
    loss = PathLoss([CurvePoint(0.0, 2.0), *(CurvePoint(time, 1 / time) for time in (1.0, 2.0, 4.0, 8.0, 16.0))])
    for time in (0.25, 1.0, 3.0, 16.0, 100.0):
        assert loss.time_of(float(loss(time))) == pytest.approx(time)
    assert loss.time_of(2.5) == 0.0
    flat = PathLoss([CurvePoint(1.0, 1.0), CurvePoint(2.0, 1.0)])
    assert flat.time_of(0.5) == math.inf


@pytest.mark.parametrize(("momentum", "steps"), [(0.0, 7), (0.9, 1), (0.9, 50), (0.5, 3)])
def test_the_memory_is_what_the_rule_stays_behind_under_a_constant_gradient(momentum: float, steps: int) -> None:
    buffer = moved = 0.0
    for _ in range(steps):
        buffer = momentum * buffer + (1 - momentum)
        moved += buffer
    assert moved == pytest.approx(steps - memory_of(momentum, steps))
