"""What came of training: the points of its curve."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A model measured after ``step`` steps, in eval mode.

    ``train_loss`` is the mean loss over all training examples, summed in float64; the accuracies are the mean metric
    over the validation and the test data, None where they were not asked for.
    """

    step: int
    epoch: float
    train_loss: float
    validation_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class History:
    """The points in order, the first before any step.

    ``failed_at`` is the step whose minibatch loss was not finite, or whose gradients overflow in float16 however the
    loss is scaled. Training stopped there: the points that would have followed are absent. None: it reached its end.
    """

    points: tuple[Point, ...]
    failed_at: int | None

    @property
    def best(self) -> Point:
        """The point after some training with the highest validation accuracy, of equal ones the first.

        It is the last point where there is none, or no validation accuracy was measured.
        """
        known = [point for point in self.points[1:] if point.validation_accuracy is not None]
        return max(known, key=_validation, default=self.points[-1])


def _validation(point: Point) -> float:
    value = point.validation_accuracy
    return -math.inf if value is None or math.isnan(value) else value
