"""The input checks that the functions of this room share; each raises one line that says what to do."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lightball.errors import InputError

Differences: TypeAlias = Sequence[float] | NDArray[np.floating[Any]]
"""One number per pair, Float[n]."""


def finite_differences(differences: Differences, at_least: int = 2) -> NDArray[np.float64]:
    """The differences as a float64 vector of shape (n,), n ≥ `at_least`, all finite. Cost O(n)."""
    vector = np.asarray(differences, dtype=np.float64)
    if vector.ndim != 1:
        raise InputError(
            f"the paired differences have shape {vector.shape}; one dimension is required: pass one number per pair"
        )
    if vector.size < at_least:
        raise InputError(
            f"{vector.size} paired differences are too few; at least {at_least} are required: run more pairs"
        )
    finite = np.isfinite(vector)
    if not finite.all():
        first = int(np.argmin(finite))
        raise InputError(
            f"paired difference {first} is {vector[first]}; "
            "finite numbers are required: score failed runs before asking for an interval"
        )
    return vector


def check_margin(margin: float) -> None:
    """Raise unless 0 < margin < ∞."""
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(
            f"the margin is {margin}; a finite number above 0 is required: "
            "choose the smallest difference that would matter to you"
        )


def check_confidence(confidence: float) -> None:
    """Raise unless 0 < confidence < 1."""
    if not 0 < confidence < 1:
        raise InputError(
            f"the confidence is {confidence}; a number strictly between 0 and 1 is required: write 95 % as 0.95"
        )
