"""Whole synthetic studies through `decide`: false claims in at most 5 % of them, and power where it matters.

The margin Δ and the deviation of the pairs are both 1. Every comparison of a study has the same true
difference; at exactly ±Δ every claim is false, the worst case there is. Seeds are fixed, so that each test
gives the same answer on every run; the false-alarm rates say how a fresh seed would fare.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lightball.stats import Stages, Verdict, decide, paired_t_interval, verdict_of

MARGIN = 1.0
FAMILY = 8
STUDIES = 5_000
# Three binomial standard errors above 5 %: a rule that errs in exactly 5 % of studies fails a test of this
# limit with probability 0.16 %, so one of the four tests of it with at most 0.7 %. As the rule does not reach
# its bound (about 4 % of studies for Gaussian pairs, 3 % for t₃), it fails with less than 1e-6.
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)

Rule = Callable[[np.ndarray], Verdict]
Law = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def student_t3(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_t(3, shape) / math.sqrt(3)  # the variance of t₃ is 3


def the_rule(differences: np.ndarray) -> Verdict:
    return decide(differences, MARGIN, FAMILY).verdict


def rule_without_family(differences: np.ndarray) -> Verdict:
    return decide(differences, MARGIN, family_size=1).verdict


def rule_without_spending(differences: np.ndarray) -> Verdict:
    return peek(differences, 1 - 0.05 / FAMILY)


def rule_without_either(differences: np.ndarray) -> Verdict:
    return peek(differences, 0.95)


def peek(differences: np.ndarray, confidence: float) -> Verdict:
    """Stops at the first stage whose interval decides, with the same confidence at each."""
    verdicts = (verdict_of(paired_t_interval(differences[:n], confidence), MARGIN) for n in Stages().pairs)
    return next((v for v in verdicts if v is not Verdict.UNDECIDED), Verdict.UNDECIDED)


def verdicts_of(rule: Rule, law: Law, truth: float, seed: int) -> np.ndarray:
    """Verdicts, shape (STUDIES, FAMILY), on differences with true mean `truth`."""
    rng = np.random.default_rng(seed)
    pairs = truth + law(rng, (STUDIES * FAMILY, Stages().pairs[-1]))
    return np.array([rule(differences) for differences in pairs]).reshape(STUDIES, FAMILY)


def false_claim(verdicts: np.ndarray, truth: float) -> NDArray[np.bool_]:
    """Which verdicts claim what is not so."""
    not_so = {
        Verdict.NO_VALUE: abs(truth) >= MARGIN,
        Verdict.HELPS: truth <= MARGIN,
        Verdict.HURTS: truth >= -MARGIN,
    }
    return np.isin(verdicts, [verdict for verdict, false in not_so.items() if false])


def share_of_false_studies(rule: Rule, law: Law, truth: float, seed: int = 3) -> float:
    verdicts = verdicts_of(rule, law, truth, seed)
    return float(false_claim(verdicts, truth).any(axis=1).mean())


@pytest.mark.parametrize("law", [gaussian, student_t3])
@pytest.mark.parametrize(("truth", "seed"), [(MARGIN, 1), (-MARGIN, 2)])
def test_at_the_margin_few_studies_claim_anything(law: Law, truth: float, seed: int) -> None:
    assert share_of_false_studies(the_rule, law, truth, seed) <= LIMIT


# The controls must fail the test above. Their shares of false studies are above 20 %: 5,000 studies fall within the
# limit with probability below 1e-9.
@pytest.mark.parametrize("law", [gaussian, student_t3])
@pytest.mark.parametrize("control", [rule_without_either, rule_without_family])
def test_rules_that_forget_the_family_fail(control: Rule, law: Law) -> None:
    assert share_of_false_studies(control, law, MARGIN) > LIMIT


# About 12 % of studies with Gaussian pairs and 9 % with t₃: 5,000 fall within the limit with probability below 1e-9.
@pytest.mark.parametrize("law", [gaussian, student_t3])
def test_rule_that_peeks_without_spending_fails(law: Law) -> None:
    assert share_of_false_studies(rule_without_spending, law, MARGIN) > LIMIT


# The true power is above 97 %, so 40,000 comparisons fall below 80 % with probability below 1e-9.
@pytest.mark.parametrize("law", [gaussian, student_t3])
@pytest.mark.parametrize(
    ("truth", "verdict"),
    [(0.0, Verdict.NO_VALUE), (2 * MARGIN, Verdict.HELPS), (-2 * MARGIN, Verdict.HURTS)],
)
def test_power_away_from_the_margin(law: Law, truth: float, verdict: Verdict) -> None:
    verdicts = verdicts_of(the_rule, law, truth, seed=2)
    assert (verdicts == verdict).mean() >= 0.80
    assert false_claim(verdicts, truth).any(axis=1).mean() <= 0.05


def test_every_false_claim_is_counted() -> None:
    verdicts = np.array(list(Verdict))  # no value, helps, hurts, undecided
    assert false_claim(verdicts, MARGIN).tolist() == [True, True, True, False]
    assert false_claim(verdicts, -MARGIN).tolist() == [True, True, True, False]
    assert false_claim(verdicts, 0.0).tolist() == [False, True, True, False]
    assert false_claim(verdicts, 2 * MARGIN).tolist() == [True, False, True, False]
    assert false_claim(verdicts, -2 * MARGIN).tolist() == [True, True, False, False]
