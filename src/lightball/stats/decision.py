"""The one decision rule on paired differences: staged, corrected for its looks and for its family."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from lightball.errors import InputError
from lightball.stats.checks import Differences, check_margin, finite_differences
from lightball.stats.intervals import Interval, mean_and_standard_error, paired_t_interval
from lightball.stats.planning import pairs_needed

FEWEST_PAIRS = 6
MOST_ERROR = 0.05


class Verdict(StrEnum):
    """What the differences say of momentum, given a margin below which a difference does not matter."""

    NO_VALUE = "no value"
    HELPS = "helps"
    HURTS = "hurts"
    UNDECIDED = "undecided"


def _check_pairs(pairs: tuple[int, ...]) -> None:
    increasing = all(a < b for a, b in pairwise(pairs))
    if not pairs or pairs[0] < FEWEST_PAIRS or not increasing:
        raise InputError(
            f"the stages have {list(pairs)} pairs; strictly increasing numbers from {FEWEST_PAIRS} up "
            "are required: list the cumulative pairs at each look, as in 16, 32, 64"
        )


@dataclass(frozen=True)
class Stages:
    """The looks at the data, fixed beforehand: `pairs[s]` cumulative pairs, error `alphas[s]` spent there.

    Raises:
        InputError: pairs empty, not strictly increasing or starting below 6; alphas of another length, not
            positive, or with a sum above 0.05.
    """

    pairs: tuple[int, ...] = (16, 32, 64)
    alphas: tuple[float, ...] = (0.01, 0.015, 0.025)

    def __post_init__(self) -> None:
        _check_pairs(self.pairs)
        if len(self.alphas) != len(self.pairs):
            raise InputError(
                f"{len(self.alphas)} alphas came for {len(self.pairs)} stages; "
                "one per stage is required: use stages_for(pairs) to spend the error"
            )
        if not all(alpha > 0 for alpha in self.alphas) or math.fsum(self.alphas) > MOST_ERROR * (1 + 1e-9):
            raise InputError(
                f"the alphas are {list(self.alphas)}; positive numbers with a sum of at most {MOST_ERROR} "
                "are required: use stages_for(pairs) to spend the error"
            )


DEFAULT_STAGES = Stages()


def stages_for(pairs: Sequence[int], alpha: float = MOST_ERROR) -> Stages:
    """Stages that spend alpha in proportion to the pairs added, α_s = α (n_s − n_{s−1}) / n_last.

    The default 16, 32, 64 keeps its own split, 0.2, 0.3, 0.5 of alpha. Any split fixed beforehand is valid.

    Raises:
        InputError: pairs or alpha that `Stages` refuses.

    Source: Lan and DeMets (1983), *Discrete sequential boundaries for clinical trials*, Biometrika 70(3), for
    the spending of error; the sum over looks is bounded here by Bonferroni's inequality.
    """
    looks = tuple(pairs)
    _check_pairs(looks)
    if looks == DEFAULT_STAGES.pairs:
        return Stages(looks, tuple(share * (alpha / MOST_ERROR) for share in DEFAULT_STAGES.alphas))
    return Stages(looks, tuple(alpha * (n - before) / looks[-1] for before, n in pairwise((0, *looks))))


@dataclass(frozen=True)
class Decision:
    """A verdict and what it rests on.

    `stage` counts from 1. `final` is False while another stage remains. `pairs_needed`, for an undecided
    comparison only, estimates the pairs in all that would decide it, the next stage at the earliest; None if
    the mean lies at the margin or the need is out of reach.
    """

    verdict: Verdict
    interval: Interval
    margin: float
    stage: int
    final: bool
    pairs_needed: int | None


def verdict_of(interval: Interval, margin: float) -> Verdict:
    """Strictly within ±margin: no value; wholly above +margin: helps; wholly below −margin: hurts.

    Positive differences favour momentum. Raises InputError unless 0 < margin < ∞.
    """
    check_margin(margin)
    if -margin < interval.low and interval.high < margin:
        return Verdict.NO_VALUE
    if interval.low > margin:
        return Verdict.HELPS
    if interval.high < -margin:
        return Verdict.HURTS
    return Verdict.UNDECIDED


def decide(differences: Differences, margin: float, family_size: int, stages: Stages = DEFAULT_STAGES) -> Decision:
    """The verdict on one comparison out of a family, from its paired differences in the planned order.

    Stage s takes the first n_s differences and the paired-t interval of level 1 − α_s/|F|; the first stage
    whose interval decides (`verdict_of`) is final, and later pairs never alter it; an interval of no width, from
    equal differences, decides at the last stage only. As Σ_s Σ_F α_s/|F| ≤ 0.05,
    any false claim in a study has probability at most 5 %, whatever the correlations between comparisons: a
    bound for Gaussian pairs, an approximation for others. Pairs beyond the last stage covered are not used.

    Args:
        differences: Float[n], signed so that positive favours momentum; failed runs are already scored.
        margin: Δ, the smallest difference that matters, in the unit of the differences, fixed beforehand.
        family_size: |F|, the number of comparisons in the study, fixed beforehand.
        stages: the looks, fixed beforehand.

    Cost O(n). Raises:
        InputError: fewer differences than the first stage needs, or not all finite; margin not above 0;
            family_size below 1.
    """
    check_margin(margin)
    if family_size < 1:
        raise InputError(
            f"the family size is {family_size}; at least 1 is required: count every comparison of the study"
        )
    vector = finite_differences(differences, at_least=stages.pairs[0])
    covered = [n for n in stages.pairs if n <= vector.size]
    for stage, (n, alpha) in enumerate(zip(covered, stages.alphas, strict=False), start=1):
        interval = paired_t_interval(vector[:n], 1 - alpha / family_size)
        verdict = verdict_of(interval, margin)
        # Equal differences, as coarse scores give, show no spread but do not prove that there is none: more pairs.
        if interval.low == interval.high and stage < len(stages.pairs):
            continue
        if verdict is not Verdict.UNDECIDED:
            return Decision(verdict, interval, margin, stage, final=True, pairs_needed=None)

    mean, standard_error = mean_and_standard_error(vector[: covered[-1]])
    deviation = standard_error * math.sqrt(covered[-1])
    needed = pairs_needed(mean, deviation, margin, 1 - stages.alphas[-1] / family_size)
    final = len(covered) == len(stages.pairs)
    if needed is not None and not final:
        needed = max(needed, stages.pairs[len(covered)])
    return Decision(Verdict.UNDECIDED, interval, margin, len(covered), final, needed)
