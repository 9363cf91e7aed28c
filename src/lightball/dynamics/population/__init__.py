"""Populations: up to millions of trajectories of an oracle, of which only moments are kept.

- `simulation`: the one entry, `simulate`, and the arms it takes.
- `recorded`: the moments it returns; `streaming`: how they are added up.
- `observables`: those that everyone asks for.
- `partition`: chunks that fit a core's cache; `chunks`: one of them from start to end.
- `program`: a traced step made quick; `cuda_graph`: a step on a GPU in one launch.
"""

from lightball.dynamics.population.chunks import Observable
from lightball.dynamics.population.observables import coordinate, coordinates, loss_of, square
from lightball.dynamics.population.recorded import Moments
from lightball.dynamics.population.simulation import Arm, Observer, simulate

__all__ = [
    "Arm",
    "Moments",
    "Observable",
    "Observer",
    "coordinate",
    "coordinates",
    "loss_of",
    "simulate",
    "square",
]
