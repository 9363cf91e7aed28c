"""One plain loop that trains one model of any kind on a workload, with SGD or SGDM.

What lightball means by training stands in :mod:`lightball.training.loop`; a step of it in ``step``, an evaluation in
``evaluation``. The vectorised engine trains many models at once and is held to this loop by tests.
"""

from lightball.training.folder import load_model
from lightball.training.history import History, Point
from lightball.training.loop import train
from lightball.training.recipe import Recipe

__all__ = ["History", "Point", "Recipe", "load_model", "train"]
