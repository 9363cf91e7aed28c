"""From several learning rates to the limit of small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightball.errors import InputError
from lightball.stats.orders import Z95


@dataclass(frozen=True)
class Limit:
    """The value at η = 0 of a polynomial through measured values, with its standard error and 95 % interval.

    ``coefficients`` are those of 1, η, η², …
    """

    value: float
    standard_error: float
    coefficients: tuple[float, ...]

    @property
    def ci95(self) -> tuple[float, float]:
        """Value ± 1.96 standard errors."""
        return self.value - Z95 * self.standard_error, self.value + Z95 * self.standard_error

    def at(self, eta: float) -> float:
        """The polynomial at a rate."""
        return sum(coefficient * eta**power for power, coefficient in enumerate(self.coefficients))


def extrapolate(
    etas: Sequence[float], values: Sequence[float], standard_errors: Sequence[float], degree: int = 2
) -> Limit | None:
    """The limit η → 0 of value(η) = v₀ + v₁η + … by weighted least squares, weights 1/standard error².

    The degree falls to the number of rates less one where these are few. The interval holds what the noise explains,
    not what higher powers of η would add: take rates small enough that those are less. Values that are not finite are
    left out; None if fewer than two remain. Standard errors that are all zero mean exact values of equal weight.

    Raises:
        InputError: different numbers of rates, values and errors, or rates that are equal or not positive.
    """
    rates, y, noise = (np.asarray(numbers, dtype=np.float64) for numbers in (etas, values, standard_errors))
    if not rates.shape == y.shape == noise.shape:
        raise InputError(f"there are {rates.size} rates, {y.size} values and {noise.size} errors; required is one each")
    if not (rates > 0).all() or len(set(rates.tolist())) < len(rates):
        raise InputError(f"the rates are {rates.tolist()}; required are different numbers > 0")
    known = np.isfinite(y) & np.isfinite(noise)
    rates, y, noise = rates[known], y[known], noise[known]
    if len(rates) < 2:
        return None
    exact = not noise.any()
    weights = np.ones_like(noise) if exact else 1 / np.maximum(noise, 1e-12 * noise.max())
    largest = float(rates.max())
    # Rates in units of the largest, so that their powers are of one size.
    design = np.vander(rates / largest, min(degree, len(rates) - 1) + 1, increasing=True)
    inverse = np.linalg.pinv(design * weights[:, None])
    found = inverse @ (y * weights)
    error = 0.0 if exact else float(np.linalg.norm(inverse[0]))
    return Limit(float(found[0]), error, tuple(float(c) / largest**power for power, c in enumerate(found)))
