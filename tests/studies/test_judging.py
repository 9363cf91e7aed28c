"""From outcomes to differences, ratios, speeds, and the line in sum."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabricated import BEST_LOSS, UNTRAINED_ACCURACY, UNTRAINED_LOSS, broken, outcome
from lightball.stats import Verdict
from lightball.studies.judging import differences, epochs_to, judge
from lightball.studies.result import BatchResult, span
from lightball.studies.runs import Outcome, Run, seeds
from lightball.studies.settings import Settings
from lightball.studies.tuning import Choice

NO, HELPS, HURTS, OPEN = Verdict.NO_VALUE, Verdict.HELPS, Verdict.HURTS, Verdict.UNDECIDED
SEEDS = seeds("confirm", 6)


def runs(momentum: float, lr: float = 0.4) -> list[Run]:
    return [Run(8, lr, seed, momentum) for seed in SEEDS]


def judged(sgd: list[Outcome], sgdm: list[Outcome]) -> BatchResult:
    settings = Settings(batch_sizes=(8,), stages=(6,), lr=(0.4,))
    choices = {m: Choice(0.4, False, ()) for m in (0.0, 0.9)}
    outcomes = {o.run: o for o in (*sgd, *sgdm)}
    return judge(settings, 8, SEEDS, [0.4], choices, {"train_loss": 0.02, "test_accuracy": 0.005}, outcomes)


def test_positive_favours_momentum_for_both_measures() -> None:
    sgd = [outcome(run, 0.5, 0.8) for run in runs(0.0)]
    better = [outcome(run, 0.4, 0.9) for run in runs(0.9)]
    assert differences(sgd, better, "train_loss") == pytest.approx(0.1)
    assert differences(sgd, better, "test_accuracy") == pytest.approx(0.1)
    assert differences(better, sgd, "train_loss") == pytest.approx(-0.1)
    assert differences(better, sgd, "test_accuracy") == pytest.approx(-0.1)


def test_verdicts_have_that_sign_too() -> None:
    sgd = [outcome(run, 0.5, 0.8) for run in runs(0.0)]
    mixed = [outcome(run, 0.4, 0.7) for run in runs(0.9)]  # lower loss, but lower accuracy
    (pairing,) = judged(sgd, mixed).pairings
    assert pairing.verdict("train_loss") is HELPS
    assert pairing.verdict("test_accuracy") is HURTS


def test_failed_runs_score_the_untrained_model_and_are_counted() -> None:
    sgd = [broken(runs(0.0)[0]), *[outcome(run, 0.5, 0.8) for run in runs(0.0)[1:]]]
    sgdm = [outcome(run, 0.5, 0.8) for run in runs(0.9)]
    expected = [UNTRAINED_LOSS - 0.5, 0, 0, 0, 0, 0]
    assert differences(sgd, sgdm, "train_loss").tolist() == pytest.approx(expected)
    assert differences(sgd, sgdm, "test_accuracy")[0] == pytest.approx(0.8 - UNTRAINED_ACCURACY)
    result = judged(sgd, sgdm)
    assert (result.sgd.failed, result.sgd.runs) == (1, 6)
    assert result.sgd.train_loss == pytest.approx((UNTRAINED_LOSS + 5 * 0.5) / 6)
    (equal,) = result.equal_rates
    assert (equal.failed_sgd, equal.failed_sgdm) == (1, 0)
    assert result.sgd.curve[-1] == pytest.approx((UNTRAINED_LOSS + 5 * 0.5) / 6)


def test_loss_ratio_is_the_geometric_mean_over_pairs() -> None:
    sgd = [outcome(run, 0.4 * 2.0 ** (i % 2)) for i, run in enumerate(runs(0.0))]
    sgdm = [outcome(run, 0.2) for run in runs(0.9)]
    ratio = judged(sgd, sgdm).pairings[0].loss_ratio
    assert ratio == pytest.approx(2 * math.sqrt(2))


def test_a_loss_of_zero_has_no_ratio_and_no_warning() -> None:
    sgd, sgdm = ([outcome(run, 0.0) for run in runs(m)] for m in (0.0, 0.9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ratio = judged(sgd, sgdm).pairings[0].loss_ratio
    assert ratio is not None
    assert not math.isfinite(ratio)


def test_speed_is_measured_to_the_worse_rules_final_loss() -> None:
    sgd = [outcome(run, 0.9) for run in runs(0.0)]
    sgdm = [outcome(run, BEST_LOSS) for run in runs(0.9)]  # 2.3, 1.3, 0.3
    speed = judged(sgd, sgdm).pairings[0].speed
    assert speed is not None
    assert speed.level == pytest.approx(0.9)
    assert speed.sgd == pytest.approx(2.0)
    assert speed.sgdm == pytest.approx(1.4)


class TestEpochsTo:
    def test_interpolates_between_epochs(self) -> None:
        assert epochs_to([2.0, 1.0, 0.5], 1.5) == pytest.approx(0.5)
        assert epochs_to([2.0, 1.0, 0.5], 0.75) == pytest.approx(1.5)

    def test_first_time_it_is_reached(self) -> None:
        assert epochs_to([2.0, 1.0, 1.8, 0.5], 1.2) == pytest.approx(0.8)

    def test_at_the_start_and_never(self) -> None:
        assert epochs_to([1.0, 2.0], 1.0) == 0.0
        assert epochs_to([2.0, 1.0], 0.5) == math.inf

    @given(st.lists(st.floats(0, 10), min_size=2, max_size=10), st.floats(0, 1))
    def test_law(self, curve: list[float], where: float) -> None:
        """A level between the first and the lowest value is reached, between the epochs around it."""
        level = min(curve) + where * (curve[0] - min(curve))
        epochs = epochs_to(curve, level)
        assert 0 <= epochs <= len(curve) - 1
        assert np.interp(epochs, range(len(curve)), curve) == pytest.approx(level, abs=1e-6)
        assert all(value > level for value in curve[: math.ceil(epochs)])


class TestSpan:
    def test_the_usual_picture(self) -> None:
        found = span([(8, [NO]), (32, [NO]), (128, [HELPS]), (512, [HELPS])])
        assert (found.no_value_up_to, found.helps_from) == (32, 128)

    def test_a_gap_between_is_claimed_by_neither(self) -> None:
        found = span([(8, [NO]), (32, [OPEN]), (128, [HELPS])])
        assert (found.no_value_up_to, found.helps_from) == (8, 128)

    @pytest.mark.parametrize("odd", [OPEN, HURTS])
    def test_only_leading_and_trailing_batch_sizes_count(self, odd: Verdict) -> None:
        assert span([(8, [odd]), (32, [NO])]).no_value_up_to is None
        assert span([(32, [HELPS]), (128, [odd])]).helps_from is None
        assert span([(8, [NO]), (32, [odd]), (128, [NO])]).no_value_up_to == 8
        assert span([(8, [HELPS]), (32, [odd]), (128, [HELPS])]).helps_from == 128

    def test_several_momenta(self) -> None:
        """No value is claimed where no momentum had any, help where some momentum did."""
        found = span([(8, [NO, NO]), (32, [NO, OPEN]), (128, [HELPS, NO]), (512, [HURTS, HELPS])])
        assert (found.no_value_up_to, found.helps_from) == (8, 128)

    def test_extremes(self) -> None:
        assert (span([(8, [NO]), (32, [NO])]).no_value_up_to, span([(8, [NO])]).helps_from) == (32, None)
        assert (span([(8, [HELPS]), (32, [HELPS])]).helps_from, span([(8, [HELPS])]).no_value_up_to) == (8, None)

    def test_order_of_the_rows_does_not_matter(self) -> None:
        rows = [(8, [NO]), (32, [NO]), (128, [HELPS])]
        assert span(rows) == span(rows[::-1])
