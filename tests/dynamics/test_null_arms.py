"""From oracle to verdict: synthetic studies whose answer is known, all of them in one ensemble.

Both arms are SGD with momentum 0 and independent noise, so that the differences of the final loss have mean 0.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from lightball.dynamics import Ensemble
from lightball.oracles import Quadratic, Seeded
from lightball.rules import canonical
from lightball.stats import Stages, Verdict, decide

STUDIES = 400
PAIRS = Stages().pairs[-1]
LR, NUM_STEPS = 0.2, 25
# Three binomial standard errors above 5 %: a rule that errs in exactly 5 % of studies fails with probability 0.3 %.
# As errors are spent by Bonferroni's inequality and differences of losses have heavier tails than Gaussian ones, the
# rule errs in fewer.
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)
CLAIMS = (Verdict.HELPS, Verdict.HURTS)


@pytest.fixture(scope="module")
def losses() -> np.ndarray:
    """Final losses, shape (arm, study, pair); the third arm has a larger learning rate."""
    oracle = Seeded(Quadratic(torch.tensor([0.5, 2.0, 1.0]), 1.0, torch.ones(3)), steps_per_epoch=NUM_STEPS)
    runs = STUDIES * PAIRS
    lr = torch.tensor([LR, LR, 3 * LR]).repeat_interleave(runs)
    ensemble = Ensemble(oracle, range(3 * runs), canonical(lr, 0.0))
    ensemble.advance(NUM_STEPS)
    return ensemble.measure(oracle.loss).double().reshape(3, STUDIES, PAIRS).numpy()


def verdicts(differences: np.ndarray, margin: float) -> Counter[Verdict]:
    return Counter(decide(study, margin, family_size=1).verdict for study in differences)


def test_equal_arms_are_told_apart_in_at_most_five_percent(losses: np.ndarray) -> None:
    differences = losses[0] - losses[1]
    # A margin far below the standard error of a study's mean: hardly anything but a wrong claim can be decided, and
    # every interval that misses 0 becomes one.
    found = verdicts(differences, margin=1e-3 * differences.std())
    assert found[Verdict.NO_VALUE] == 0
    assert sum(found[claim] for claim in CLAIMS) <= LIMIT * STUDIES
    # The test can see errors: looking thrice at intervals of 80 % misleads in more studies than that.
    careless = Stages()
    object.__setattr__(careless, "alphas", (0.2, 0.2, 0.2))
    misled = [decide(study, 1e-3 * differences.std(), 1, careless).verdict in CLAIMS for study in differences]
    assert np.mean(misled) > LIMIT


def test_equal_arms_are_found_equal_at_a_wide_margin(losses: np.ndarray) -> None:
    differences = losses[0] - losses[1]
    # At 64 pairs the half-width is t₀.₉₈₇₅(63) / 8 = 0.29 deviations, so a mean within 0.31 of 0 decides at 0.6.
    found = verdicts(differences, margin=0.6 * differences.std())
    assert found[Verdict.NO_VALUE] >= 0.95 * STUDIES
    assert sum(found[claim] for claim in CLAIMS) <= LIMIT * STUDIES


def test_a_real_difference_is_called(losses: np.ndarray) -> None:
    """The control: the arm with thrice the learning rate ends at a higher loss, and that is what is said."""
    differences = losses[0] - losses[2]
    deviation = differences.std()
    assert -differences.mean() > 0.4 * deviation  # or the control would ask too much
    found = verdicts(differences, margin=0.05 * deviation)
    assert found[Verdict.HURTS] >= 0.6 * STUDIES
    assert found[Verdict.HELPS] == 0
    assert found[Verdict.NO_VALUE] <= LIMIT * STUDIES
