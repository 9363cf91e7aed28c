"""The paired-t interval of a mean difference."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtrit

from lightball.stats.checks import Differences, check_confidence, finite_differences


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval of a mean, in the unit of the differences.

    Over repeated studies [low, high] holds the true mean with probability `confidence`: exactly for Gaussian
    pairs, approximately for others. `n` is the number of pairs behind it.
    """

    mean: float
    low: float
    high: float
    confidence: float
    n: int


def mean_and_standard_error(differences: Differences) -> tuple[float, float]:
    """Mean d̄ = Σd/n and its standard error s/√n, with s² = Σ(d − d̄)²/(n − 1).

    Equal differences have standard error exactly 0. Sums are taken after division by a power of two near the
    largest |d|, which rounds nothing and keeps squares from overflow and underflow. Cost O(n).

    Raises:
        InputError: fewer than 2 differences, not a vector, or not all finite.
    """
    vector = finite_differences(differences)
    if (vector == vector[0]).all():
        return float(vector[0]), 0.0
    _, exponent = math.frexp(float(np.abs(vector).max()))
    scaled = np.ldexp(vector, -exponent)
    mean = scaled.mean()
    deviations = scaled - mean
    standard_error = math.sqrt(float(deviations @ deviations) / (vector.size - 1) / vector.size)
    return float(np.ldexp(mean, exponent)), math.ldexp(standard_error, exponent)


@lru_cache(maxsize=4096)
def t_multiplier(confidence: float, n: int) -> float:
    """Half-width of the two-sided t interval in standard errors: the (1 + confidence)/2 quantile of t_{n−1}.

    Raises:
        InputError: confidence outside (0, 1).
    """
    check_confidence(confidence)
    return -float(stdtrit(n - 1, (1 - confidence) / 2))


def paired_t_interval(differences: Differences, confidence: float) -> Interval:
    """The interval d̄ ± t_{n−1, (1+confidence)/2} · s/√n of the mean paired difference.

    Equal differences give the degenerate interval low = mean = high. Cost O(n).

    Raises:
        InputError: fewer than 2 differences, not a vector, not all finite; confidence outside (0, 1).

    Source: Student (1908), *The probable error of a mean*, Biometrika 6(1).
    """
    mean, standard_error = mean_and_standard_error(differences)
    n = len(differences)
    half_width = t_multiplier(confidence, n) * standard_error
    return Interval(mean, mean - half_width, mean + half_width, confidence, n)
