"""A point of the curve of a run: the loss, and those accuracies that are asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lightball.training.evaluation import mean_score
from lightball.training.history import History, Point
from lightball.training.recipe import Recipe
from lightball.training.state import TrainingState
from lightball.workloads import Workload

Accuracies = Literal["always", "ends", "best"]


def measure(
    state: TrainingState, workload: Workload, recipe: Recipe, accuracies: Accuracies, epoch: float, at_end: bool
) -> Point:
    """The model now; ``at_end`` is before the first or after the last step."""
    trained_on = workload.train if workload.measured is None else workload.measured
    width = _width(state, recipe)

    def accuracy(split: Literal["validation", "test"]) -> float:
        data = getattr(workload, split)
        return mean_score(state.model, workload.metric, data, width, recipe.precision, state.ranks)

    loss = mean_score(state.model, workload.loss, trained_on, width, recipe.precision, state.ranks)
    point = Point(state.step, epoch, loss, None, None)
    if accuracies != "ends" or at_end:
        point = replace(point, validation_accuracy=accuracy("validation"))
    better = History((*state.points, point), None).best is point
    if accuracies == "always" or (accuracies == "ends" and at_end) or (accuracies == "best" and better):
        point = replace(point, test_accuracy=accuracy("test"))
    return point


def _width(state: TrainingState, recipe: Recipe) -> int:
    """Examples that are evaluated at once.

    Without a graph, two micro-batches take no more memory than one does in training. A few examples at a time would
    take long, for no memory worth the name.
    """
    num_parts = recipe.accumulate * (1 if state.ranks is None else state.ranks.size)
    return max(2 * -(-recipe.batch_size // num_parts), 32)
