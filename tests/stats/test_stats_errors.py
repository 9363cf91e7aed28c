"""Each refusal of this room, on its whole text: one line that says what to do."""

import math
import re
from collections.abc import Callable

import pytest

from lightball.errors import InputError
from lightball.stats import (
    Interval,
    Stages,
    decide,
    mean_and_standard_error,
    paired_t_interval,
    pairs_needed,
    stages_for,
    verdict_of,
)

WRONG_PAIRS = (
    "the stages have {} pairs; strictly increasing numbers from 6 up are required: "
    "list the cumulative pairs at each look, as in 16, 32, 64"
)
WRONG_MARGIN = (
    "the margin is {}; a finite number above 0 is required: choose the smallest difference that would matter to you"
)
WRONG_ALPHAS = (
    "the alphas are {}; positive numbers with a sum of at most 0.05 are required: "
    "use stages_for(pairs) to spend the error"
)
WRONG_CONFIDENCE = "the confidence is {}; a number strictly between 0 and 1 is required: write 95 % as 0.95"
WRONG_SPREAD = (
    "the mean is {} and the standard deviation {}; a finite mean and a deviation of at least 0 are required: "
    "take both from finite differences"
)
NOT_FINITE = "paired difference {} is {}; finite numbers are required: score failed runs before asking for an interval"
UNIT = Interval(0.0, -1.0, 1.0, 0.95, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mean_and_standard_error([1.0]),
            "1 paired differences are too few; at least 2 are required: run more pairs",
        ),
        (
            lambda: decide([0.0] * 15, 1.0, 1),
            "15 paired differences are too few; at least 16 are required: run more pairs",
        ),
        (
            lambda: paired_t_interval([[0.0, 1.0]], 0.95),  # type: ignore[list-item]
            "the paired differences have shape (1, 2); one dimension is required: pass one number per pair",
        ),
        (lambda: paired_t_interval([0.0, math.inf], 0.95), NOT_FINITE.format(1, "inf")),
        (lambda: decide([0.0] * 20 + [math.nan], 1.0, 1), NOT_FINITE.format(20, "nan")),
        (lambda: paired_t_interval([0.0, 1.0], 95), WRONG_CONFIDENCE.format("95")),
        (lambda: paired_t_interval([0.0, 1.0], 0.0), WRONG_CONFIDENCE.format("0.0")),
        (lambda: paired_t_interval([0.0, 1.0], math.nan), WRONG_CONFIDENCE.format("nan")),
        (lambda: decide([0.0] * 16, 0.0, 1), WRONG_MARGIN.format("0.0")),
        (lambda: decide([0.0] * 16, math.nan, 1), WRONG_MARGIN.format("nan")),
        (lambda: verdict_of(UNIT, math.inf), WRONG_MARGIN.format("inf")),
        (lambda: pairs_needed(0.0, 1.0, -1.0, 0.95), WRONG_MARGIN.format("-1.0")),
        (lambda: pairs_needed(math.nan, 1.0, 1.0, 0.95), WRONG_SPREAD.format("nan", "1.0")),
        (lambda: pairs_needed(0.0, -1.0, 1.0, 0.95), WRONG_SPREAD.format("0.0", "-1.0")),
        (
            lambda: decide([0.0] * 16, 1.0, 0),
            "the family size is 0; at least 1 is required: count every comparison of the study",
        ),
        (lambda: stages_for([]), WRONG_PAIRS.format("[]")),
        (lambda: stages_for([0]), WRONG_PAIRS.format("[0]")),
        (lambda: stages_for([5, 10]), WRONG_PAIRS.format("[5, 10]")),
        (lambda: Stages((16, 16), (0.01, 0.01)), WRONG_PAIRS.format("[16, 16]")),
        (
            lambda: Stages((16, 32), (0.01,)),
            "1 alphas came for 2 stages; one per stage is required: use stages_for(pairs) to spend the error",
        ),
        (lambda: Stages((16, 32), (0.03, 0.03)), WRONG_ALPHAS.format("[0.03, 0.03]")),
        (lambda: Stages((16, 32), (0.0, 0.05)), WRONG_ALPHAS.format("[0.0, 0.05]")),
        (lambda: Stages((16,), (math.nan,)), WRONG_ALPHAS.format("[nan]")),
        (lambda: stages_for([20], alpha=0.1), WRONG_ALPHAS.format("[0.1]")),
    ],
)
def test_refusal(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        call()
