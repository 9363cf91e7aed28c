"""Trajectories of oracles under the update rule: ensembles, populations, exact moments, and the limits they tend to.

- `ensemble`: replicas with a seed, a rate and a momentum each; what studies train.
- `population`: up to millions of trajectories, of which only moments are kept.
- `moments`: exact mean and covariance on quadratics; `sde_moments`: those of the SDEs.
- `sde`, `sde_orders`: the first-order and the underdamped SDE as populations, and how fast algorithms approach them.
- `weak_error`: how far two algorithms are apart in what they do on average.
- `manifold`, `slow_sde`: the limit of gradient flow, and the drift along minimizers.
"""

from lightball.dynamics.ensemble import Ensemble
from lightball.dynamics.manifold import geometry, hessian_trace, project, sharpness
from lightball.dynamics.modes import LinearMoments
from lightball.dynamics.moments import exact_moments, is_stable, spectral_radius, stationary_covariance
from lightball.dynamics.population import Arm, Moments, coordinate, coordinates, loss_of, simulate, square
from lightball.dynamics.sde import simulate_sde
from lightball.dynamics.sde_moments import sde_moments, underdamped_sde_moments
from lightball.dynamics.sde_orders import Algorithm, errors_against_sde
from lightball.dynamics.slow_sde import SlowPath, simulate_slow
from lightball.dynamics.stepper import Stepper, compiler_available
from lightball.dynamics.weak_error import WeakError, exact_errors, simulated_errors

__all__ = [
    "Algorithm",
    "Arm",
    "Ensemble",
    "LinearMoments",
    "Moments",
    "SlowPath",
    "Stepper",
    "WeakError",
    "compiler_available",
    "coordinate",
    "coordinates",
    "errors_against_sde",
    "exact_errors",
    "exact_moments",
    "geometry",
    "hessian_trace",
    "is_stable",
    "loss_of",
    "project",
    "sde_moments",
    "sharpness",
    "simulate",
    "simulate_sde",
    "simulate_slow",
    "simulated_errors",
    "spectral_radius",
    "square",
    "stationary_covariance",
    "underdamped_sde_moments",
]
