"""Selecting a rate, and where a grid must grow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabricated import BEST_LOSS, UNTRAINED_ACCURACY, UNTRAINED_LOSS, broken, outcome
from lightball.studies.runs import Run
from lightball.studies.tuning import RateScore, edges, extend, rate_scores, select_rate


def scored(*means: float, failed: tuple[int, ...] = ()) -> list[RateScore]:
    """Scores at the rates 1, 2, 4, …; ``failed`` are positions at which one of six seeds failed."""
    return [RateScore(2.0**i, mean, int(i in failed), 6) for i, mean in enumerate(means)]


score_lists = st.lists(st.tuples(st.floats(-10, 10), st.booleans()), min_size=1, max_size=8).map(
    lambda rows: [RateScore(2.0**i, mean, int(fails), 6) for i, (mean, fails) in enumerate(rows)]
)
tolerances = st.floats(0, 5)


class TestSelection:
    def test_smallest_rate_within_tolerance_of_the_best(self) -> None:
        scores = scored(1.0, 0.52, 0.50, 0.51)
        assert select_rate(scores, tolerance=0.0) == 4.0
        assert select_rate(scores, tolerance=0.02 + 1e-12) == 2.0
        assert select_rate(scores, tolerance=0.5) == 1.0

    def test_higher_is_better(self) -> None:
        scores = scored(0.90, 0.97, 0.98, 0.60)
        assert select_rate(scores, 0.0, higher_is_better=True) == 4.0
        assert select_rate(scores, 0.01 + 1e-12, higher_is_better=True) == 2.0

    def test_a_rate_with_a_failure_is_neither_selected_nor_the_best(self) -> None:
        # The failing rate 4 is the best mean by far; it must not move what counts as within tolerance either.
        scores = scored(0.60, 0.50, 0.10, failed=(2,))
        assert select_rate(scores, tolerance=0.05) == 2.0

    def test_none_if_every_rate_fails_or_there_is_none(self) -> None:
        assert select_rate(scored(0.1, 0.2, failed=(0, 1)), 0.1) is None
        assert select_rate([], 0.1) is None

    @given(score_lists, tolerances, st.booleans())
    def test_law(self, scores: list[RateScore], tolerance: float, higher: bool) -> None:
        """The selected rate trained on every seed, is good enough, and nothing smaller is both."""
        selected = select_rate(scores, tolerance, higher)
        usable = [s for s in scores if s.failed == 0]
        assert (selected is None) == (not usable)
        if selected is None:
            return
        losses = {s.effective_lr: -s.mean if higher else s.mean for s in usable}
        best = min(losses.values())
        assert losses[selected] <= best + tolerance
        assert all(loss > best + tolerance for rate, loss in losses.items() if rate < selected)

    @given(score_lists, tolerances, tolerances)
    def test_a_larger_tolerance_never_selects_a_larger_rate(self, scores: list[RateScore], a: float, b: float) -> None:
        narrow, wide = (select_rate(scores, t) for t in sorted((a, b)))
        assert (narrow is None and wide is None) or (narrow is not None and wide is not None and wide <= narrow)

    @given(score_lists, tolerances)
    def test_higher_is_better_is_the_mirror_image(self, scores: list[RateScore], tolerance: float) -> None:
        mirrored = [RateScore(s.effective_lr, -s.mean, s.failed, s.runs) for s in scores]
        assert select_rate(scores, tolerance) == select_rate(mirrored, tolerance, higher_is_better=True)
        assert edges(scores, tolerance) == edges(mirrored, tolerance, higher_is_better=True)


class TestEdges:
    def test_inside(self) -> None:
        assert edges(scored(1.0, 0.5, 0.8), 0.01) == set()

    def test_low_if_the_smallest_rate_is_selected(self) -> None:
        assert edges(scored(0.5, 0.6, 0.8), 0.01) == {"low"}
        assert edges(scored(0.505, 0.5, 0.8), 0.01) == {"low"}

    def test_high_if_the_best_is_the_largest_rate(self) -> None:
        assert edges(scored(1.0, 0.8, 0.5), 0.01) == {"high"}
        # 2 is selected, but a still larger rate could be so good that 2 is no longer within tolerance
        assert edges(scored(1.0, 0.505, 0.5), 0.01) == {"high"}

    def test_a_failing_largest_rate_ends_the_grid(self) -> None:
        assert edges(scored(1.0, 0.8, 0.5, failed=(2,)), 0.01) == set()

    def test_low_if_all_fail(self) -> None:
        assert edges(scored(1.0, 0.8, failed=(0, 1)), 0.01) == {"low"}

    def test_both(self) -> None:
        assert edges(scored(0.5), 0.01) == {"low", "high"}
        assert edges(scored(0.505, 0.6, 0.5), 0.01) == {"low", "high"}


class TestExtension:
    def test_by_the_ratio_at_that_edge(self) -> None:
        grid = [0.1, 0.2, 0.6]
        assert extend(grid, "low") == 0.05
        assert extend(grid, "high") == 1.8

    def test_a_single_rate_doubles_and_halves(self) -> None:
        assert (extend([0.3], "low"), extend([0.3], "high")) == (0.15, 0.6)

    @given(st.floats(1e-6, 10), st.floats(1.01, 100), st.integers(1, 6), st.sampled_from(["low", "high"]))
    def test_law(self, first: float, ratio: float, size: int, edge: str) -> None:
        """A geometric grid grows strictly, at the asked edge, to a geometric grid (rates keep 6 digits)."""
        grid = [first * ratio**i for i in range(size)]
        rate = extend(grid, edge)
        inner = grid[0] if edge == "low" else grid[-1]
        assert rate < inner if edge == "low" else rate > inner
        expected = ratio if size > 1 else 2.0
        assert max(rate, inner) / min(rate, inner) == pytest.approx(expected, rel=1e-4)


class TestScores:
    def test_means_by_increasing_rate(self) -> None:
        outcomes = [
            outcome(Run(8, lr, seed, 0.9), loss) for lr, seed, loss in [(0.4, 1, 0.5), (0.1, 1, 0.9), (0.4, 2, 0.7)]
        ]
        scores = rate_scores(outcomes, "train_loss")
        assert [(s.effective_lr, s.failed, s.runs) for s in scores] == [(0.1, 0, 1), (0.4, 0, 2)]
        assert [s.mean for s in scores] == [0.9, pytest.approx(0.6)]

    def test_failed_runs_score_the_untrained_model(self) -> None:
        runs = [Run(8, 0.4, seed, 0.0) for seed in range(3)]
        collapsed = outcome(runs[1], UNTRAINED_LOSS)  # ended where it started, at a finite loss
        outcomes = [outcome(runs[0], BEST_LOSS, 0.9), collapsed, broken(runs[2])]
        assert [o.failed for o in outcomes] == [False, True, True]
        (loss,) = rate_scores(outcomes, "train_loss")
        (accuracy,) = rate_scores(outcomes, "validation_accuracy")
        assert loss.failed == accuracy.failed == 2
        assert loss.mean == pytest.approx((BEST_LOSS + 2 * UNTRAINED_LOSS) / 3)
        assert accuracy.mean == pytest.approx((0.9 + 2 * UNTRAINED_ACCURACY) / 3)

    @given(st.lists(st.floats(-100, 100) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=6))
    def test_law(self, losses: list[float]) -> None:
        """Whatever the runs did, scores are finite, and a run failed unless it ended finite and below its start."""
        outcomes = [outcome(Run(8, 0.1, seed, 0.0), loss) for seed, loss in enumerate(losses)]
        for score in rate_scores(outcomes, "train_loss"):
            assert math.isfinite(score.mean)
            assert score.failed == sum(not (math.isfinite(loss) and loss < UNTRAINED_LOSS) for loss in losses)
            assert score.mean <= UNTRAINED_LOSS + 1e-9
