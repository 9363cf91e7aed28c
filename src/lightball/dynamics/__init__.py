"""Trajectories: ensembles of replicas of an oracle under the update rule."""

from lightball.dynamics.ensemble import Ensemble
from lightball.dynamics.stepper import Stepper, compiler_available

__all__ = ["Ensemble", "Stepper", "compiler_available"]
