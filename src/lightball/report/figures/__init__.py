"""Figures: functions from tables (pyarrow) to Altair charts, each as wide as its element, for light and dark pages.

Every function takes a table that is filtered to what it draws, and draws empty axes for an empty one.
"""

from lightball.report.figures.curves import training_curves
from lightball.report.figures.data import unchecked
from lightball.report.figures.differences import paired_differences
from lightball.report.figures.export import for_export, png, svg
from lightball.report.figures.rates import accuracy_by_rate, loss_by_rate
from lightball.report.figures.speed import epochs_to_same_loss
from lightball.report.figures.values import value_by_batch_size

__all__ = [
    "accuracy_by_rate",
    "epochs_to_same_loss",
    "for_export",
    "loss_by_rate",
    "paired_differences",
    "png",
    "svg",
    "training_curves",
    "unchecked",
    "value_by_batch_size",
]
