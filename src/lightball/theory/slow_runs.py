"""SGD and SGDM at one learning rate over O(1/η²) steps, as the long horizon needs them: means, or infinity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

    from lightball.dynamics.population import Moments

Algorithm = Literal["sgd", "sgdm"]
ALGORITHMS: tuple[Algorithm, ...] = ("sgd", "sgdm")


@dataclass(frozen=True)
class Run:
    """SGD and SGDM at one learning rate, on the same noise.

    An algorithm of which any trajectory has diverged has infinite values: the others' mean is no expectation.
    """

    eta: float
    moments: Moments

    @property
    def times(self) -> np.ndarray:
        """The slow times η²k of the records."""
        return self.eta**2 * self.moments.steps

    @property
    def num_steps(self) -> int:
        """Until the slow time at the end."""
        return int(self.moments.steps[-1])

    def diverged(self, algorithm: Algorithm) -> int:
        """Trajectories that are not finite at the end."""
        return int(self.moments.diverged[ALGORITHMS.index(algorithm), -1])

    def means(self, algorithm: Algorithm, observable: int = 0) -> Float[np.ndarray, "record"]:
        """Means of an observable along the way; infinite from where a trajectory diverged."""
        place = ALGORITHMS.index(algorithm)
        return np.where(self.moments.diverged[place] > 0, np.inf, self.moments.mean[place, :, observable])

    def end(self, algorithm: Algorithm, observable: int = 0) -> tuple[float, float]:
        """Mean and standard error of an observable at the end; both infinite where a trajectory diverged."""
        if self.diverged(algorithm):
            return math.inf, math.inf
        place = ALGORITHMS.index(algorithm), -1, observable
        return float(self.moments.mean[place]), float(self.moments.standard_error[place])

    def gap(self, observable: int = 0) -> tuple[float, float]:
        """SGDM minus SGD at the end, and its standard error; both infinite where a trajectory of either diverged."""
        mean, error = self.moments.difference("sgdm", "sgd")
        return float(mean[-1, observable]), float(error[-1, observable])
