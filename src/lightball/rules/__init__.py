"""The update rule of SGD with momentum, written once, and what follows from it.

- `kernel`: one step of `torch.optim.SGD`'s linear rule as a pure function; the canonical form of
  arXiv:2307.15196 (m' = β m + (1 − β) g, x' = x − η m') is a case of it, SGD the case momentum 0.
- `transitions`: that step on a quadratic, as a 2×2 matrix.
- `conventions`: settings of torch, Keras and optax converted into each other and into SGD, with caveats.
- `schedules`: factors of the learning rate by step.
- `averaging`: the SGD schedule that matches changing momentum.

Everything above this room takes its updates from here.
"""

from lightball.rules.averaging import averaged_schedule
from lightball.rules.caveats import CONVENTIONS, Caveat
from lightball.rules.conventions import Conversion, Setting, convert
from lightball.rules.kernel import Hyperparameters, State, canonical, init, step, validate
from lightball.rules.schedules import Schedule
from lightball.rules.transitions import Transition, transition

__all__ = [
    "CONVENTIONS",
    "Caveat",
    "Conversion",
    "Hyperparameters",
    "Schedule",
    "Setting",
    "State",
    "Transition",
    "averaged_schedule",
    "canonical",
    "convert",
    "init",
    "step",
    "transition",
    "validate",
]
