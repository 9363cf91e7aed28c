"""The decision rule: each verdict by hand, the walk through the stages, and the laws it obeys."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightball.stats import Interval, Stages, Verdict, decide, paired_t_interval, stages_for, verdict_of

MIRROR = {
    Verdict.HELPS: Verdict.HURTS,
    Verdict.HURTS: Verdict.HELPS,
    Verdict.NO_VALUE: Verdict.NO_VALUE,
    Verdict.UNDECIDED: Verdict.UNDECIDED,
}

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(16, 80)
means = st.floats(-3, 3)
families = st.integers(1, 20)
law = settings(deadline=None)  # a busy machine is not a failure


def draw(seed: int, n: int, mean: float) -> np.ndarray:
    """Gaussian differences of deviation 1; a longer draw with the same seed begins with the shorter one."""
    return np.random.default_rng(seed).normal(mean, 1.0, 80)[:n]


def with_mean_and_deviation(n: int, mean: float, deviation: float) -> np.ndarray:
    """n numbers, n even, whose sample mean and deviation are as given."""
    signs = np.tile([1.0, -1.0], n // 2)
    return mean + deviation * math.sqrt((n - 1) / n) * signs


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.9, 0.9, Verdict.NO_VALUE),
        (0.1, 0.9, Verdict.NO_VALUE),
        (1.1, 2.0, Verdict.HELPS),
        (-2.0, -1.1, Verdict.HURTS),
        (0.5, 1.5, Verdict.UNDECIDED),
        (-1.5, -0.5, Verdict.UNDECIDED),
        (-2.0, 2.0, Verdict.UNDECIDED),
        (-0.5, 1.0, Verdict.UNDECIDED),  # an interval that touches the margin decides nothing
        (-1.0, 0.5, Verdict.UNDECIDED),
        (1.0, 2.0, Verdict.UNDECIDED),
        (-2.0, -1.0, Verdict.UNDECIDED),
        (1.0, 1.0, Verdict.UNDECIDED),
        (0.0, 0.0, Verdict.NO_VALUE),
        (-math.inf, math.inf, Verdict.UNDECIDED),
    ],
)
def test_verdict_of_each_position(low: float, high: float, verdict: Verdict) -> None:
    assert verdict_of(Interval((low + high) / 2, low, high, 0.95, 16), margin=1.0) is verdict


def test_first_stage_decides_on_a_clear_difference() -> None:
    differences = with_mean_and_deviation(16, mean=5.0, deviation=1.0)
    decision = decide(differences, margin=1.0, family_size=4)
    assert (decision.verdict, decision.stage, decision.final) == (Verdict.HELPS, 1, True)
    assert decision.interval == paired_t_interval(differences, 1 - 0.01 / 4)
    assert decision.margin == 1.0
    assert decision.pairs_needed is None


def test_undecided_first_stage_is_not_final_and_names_at_least_the_next_stage() -> None:
    # t_15 at 1 − 0.01 is 2.947 and half-width 0.737 reaches over the margin; at 1 − 0.025 it is below.
    decision = decide(with_mean_and_deviation(16, 0.3, 1.0), margin=1.0, family_size=1)
    assert (decision.verdict, decision.stage, decision.final) == (Verdict.UNDECIDED, 1, False)
    assert decision.pairs_needed == 32


def test_pairs_between_stages_wait_for_the_next_stage() -> None:
    differences = draw(seed=0, n=31, mean=1.0)
    assert decide(differences, 1.0, 1) == decide(differences[:16], 1.0, 1)


@pytest.mark.parametrize(
    ("stage", "n", "alpha", "mean"), [(1, 16, 0.01, 0.0), (2, 32, 0.015, 0.45), (3, 64, 0.025, 0.65)]
)
def test_each_stage_spends_its_own_error(stage: int, n: int, alpha: float, mean: float) -> None:
    decision = decide(with_mean_and_deviation(64, mean, 1.0), margin=1.0, family_size=2)
    assert (decision.verdict, decision.stage, decision.final) == (Verdict.NO_VALUE, stage, True)
    assert (decision.interval.n, decision.interval.confidence) == (n, 1 - alpha / 2)


def test_undecided_last_stage_is_final_and_its_number_of_pairs_would_decide() -> None:
    decision = decide(with_mean_and_deviation(64, 0.9, 1.0), margin=1.0, family_size=8)
    assert (decision.verdict, decision.stage, decision.final) == (Verdict.UNDECIDED, 3, True)
    assert decision.pairs_needed is not None
    enough = decision.pairs_needed + decision.pairs_needed % 2
    more = with_mean_and_deviation(enough, 0.9, 1.0)
    assert verdict_of(paired_t_interval(more, 1 - 0.025 / 8), 1.0) is Verdict.NO_VALUE
    fewer = with_mean_and_deviation(enough - 2, 0.9, 1.0)
    assert verdict_of(paired_t_interval(fewer, 1 - 0.025 / 8), 1.0) is Verdict.UNDECIDED


def test_no_number_of_pairs_decides_a_mean_at_the_margin() -> None:
    decision = decide([0.5] * 64, margin=0.5, family_size=1)
    assert (decision.verdict, decision.final, decision.pairs_needed) == (Verdict.UNDECIDED, True, None)


def test_differences_near_the_largest_float_are_undecided_not_an_error() -> None:
    assert decide([1e308, -1e308] * 32, margin=1.0, family_size=1).verdict is Verdict.UNDECIDED


def test_a_result_cannot_be_altered() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        decide([0.0] * 16, 1.0, 1).margin = 2.0  # type: ignore[misc]


def test_default_stages_are_those_of_stages_for() -> None:
    assert stages_for([16, 32, 64]) == Stages() == Stages((16, 32, 64), (0.01, 0.015, 0.025))
    assert stages_for([16, 32, 64], alpha=0.025).alphas == (0.005, 0.0075, 0.0125)


@law
@given(st.lists(st.integers(6, 500), min_size=1, max_size=8, unique=True), st.floats(0.001, 0.05))
def test_other_stages_spend_all_the_error_in_proportion_to_the_pairs(pairs: list[int], alpha: float) -> None:
    stages = stages_for(sorted(pairs), alpha)
    assert sum(stages.alphas) == pytest.approx(alpha, rel=1e-12)
    if stages.pairs != (16, 32, 64):
        added = np.diff([0, *stages.pairs])
        np.testing.assert_allclose(stages.alphas, alpha * added / stages.pairs[-1], rtol=1e-12)


@law
@given(seeds, sizes, means, families)
def test_swapping_the_arms_swaps_helps_and_hurts(seed: int, n: int, mean: float, family: int) -> None:
    differences = draw(seed, n, mean)
    there, back = decide(differences, 1.0, family), decide(-differences, 1.0, family)
    assert back.verdict is MIRROR[there.verdict]
    assert (back.stage, back.final, back.pairs_needed) == (there.stage, there.final, there.pairs_needed)
    assert (back.interval.low, back.interval.high) == (-there.interval.high, -there.interval.low)


@law
@given(seeds, sizes, sizes, means, families)
def test_more_pairs_never_alter_a_final_decision(seed: int, n: int, m: int, mean: float, family: int) -> None:
    fewer, more = sorted((n, m))
    early, late = (decide(draw(seed, pairs, mean), 1.0, family) for pairs in (fewer, more))
    assert late == early or not early.final
    assert late.stage >= early.stage


@law
@given(seeds, sizes, means, families, st.integers(-40, 40))
def test_the_unit_of_the_differences_does_not_matter(
    seed: int, n: int, mean: float, family: int, exponent: int
) -> None:
    # A power of two rounds nothing, so the law holds exactly.
    differences, unit = draw(seed, n, mean), 2.0**exponent
    one, other = decide(differences, 1.0, family), decide(unit * differences, unit, family)
    assert (one.verdict, one.stage, one.final) == (other.verdict, other.stage, other.final)


@law
@given(seeds, sizes, means, families, st.floats(0.01, 5), st.floats(0.01, 5))
def test_no_value_survives_a_wider_margin(
    seed: int, n: int, mean: float, family: int, one: float, other: float
) -> None:
    narrow, wide = sorted((one, other))
    differences = draw(seed, n, mean)
    at_narrow, at_wide = decide(differences, narrow, family), decide(differences, wide, family)
    if at_narrow.verdict is Verdict.NO_VALUE:
        assert at_wide.verdict is Verdict.NO_VALUE
        assert at_wide.stage <= at_narrow.stage


@law
@given(seeds, means, families, st.floats(0.01, 2), st.floats(0.01, 2))
def test_one_look_that_clears_a_margin_clears_a_narrower_one(
    seed: int, mean: float, family: int, one: float, other: float
) -> None:
    narrow, wide = sorted((one, other))
    differences, stages = draw(seed, 16, mean), stages_for([16])
    at_narrow, at_wide = (decide(differences, margin, family, stages).verdict for margin in (narrow, wide))
    if at_wide in (Verdict.HELPS, Verdict.HURTS):
        assert at_narrow is at_wide


@law
@given(seeds, means, families, families)
def test_one_look_in_a_larger_family_only_loses_verdicts(seed: int, mean: float, one: int, other: int) -> None:
    small, large = sorted((one, other))
    differences, stages = draw(seed, 16, mean), stages_for([16])
    among_many = decide(differences, 1.0, large, stages).verdict
    assert among_many in (Verdict.UNDECIDED, decide(differences, 1.0, small, stages).verdict)


@law
@given(seeds, sizes, means, families)
def test_pairs_are_asked_for_only_while_undecided_and_always_more(seed: int, n: int, mean: float, family: int) -> None:
    decision = decide(draw(seed, n, mean), 1.0, family)
    if decision.verdict is Verdict.UNDECIDED:
        assert decision.final == (decision.stage == 3)
        assert decision.pairs_needed is None or decision.pairs_needed > decision.interval.n
    else:
        assert decision.final
        assert decision.pairs_needed is None
