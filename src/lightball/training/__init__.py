"""One plain loop that trains one model of any kind on a workload, with SGD or SGDM.

What lightball means by training stands in :mod:`lightball.training.loop`; a step of it in ``step``, an evaluation in
``evaluation``. The vectorised engine trains many models at once and is held to this loop by tests.
"""

from lightball.training.folder import load_model
from lightball.training.history import History, Point
from lightball.training.loop import train
from lightball.training.measuring import Accuracies
from lightball.training.ranks import Ranks, find_ranks
from lightball.training.recipe import Recipe

__all__ = ["Accuracies", "History", "Point", "Ranks", "Recipe", "find_ranks", "load_model", "train"]
