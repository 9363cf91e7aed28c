"""Intervals and the one rule that turns paired differences into a verdict.

A difference is the score of SGD with momentum against SGD without it, on the same weights and the same
data order, signed so that positive favours momentum. `paired_t_interval` says where its mean lies; `decide`
compares that interval with a margin fixed beforehand, in stages and within a family, such that a whole study
makes any false claim with probability at most 5 %. `largest_error` and `fit_order` say how fast an error falls
with the learning rate. Nothing here knows of torch or of where the differences
came from.

    >>> from lightball.stats import decide
    >>> decision = decide([0.01, -0.02, 0.00, 0.02, -0.01, 0.01, -0.01, 0.00] * 2, margin=0.05, family_size=1)
    >>> str(decision.verdict), decision.stage, decision.final
    ('no value', 1, True)
"""

from lightball.stats.decision import Decision, Stages, Verdict, decide, stages_for, verdict_of
from lightball.stats.extrapolation import Limit, extrapolate
from lightball.stats.intervals import Interval, mean_and_standard_error, paired_t_interval
from lightball.stats.orders import OrderFit, Slope, fit_order, largest_error
from lightball.stats.planning import pairs_needed

__all__ = [
    "Decision",
    "Interval",
    "Limit",
    "OrderFit",
    "Slope",
    "Stages",
    "Verdict",
    "decide",
    "extrapolate",
    "fit_order",
    "largest_error",
    "mean_and_standard_error",
    "paired_t_interval",
    "pairs_needed",
    "stages_for",
    "verdict_of",
]
