"""Noise and curvature of a model at its current weights, measured without a trace."""

from __future__ import annotations

from lightball.probe.ahead import NoiseAhead, PathPoint
from lightball.probe.eigenvalues import Eigenvalue
from lightball.probe.estimates import Estimate
from lightball.probe.measure import SpectralMeasure
from lightball.probe.objective import Supervised, supervised
from lightball.probe.path import look_ahead
from lightball.probe.probe import probe
from lightball.probe.record import Buffer, Probe, load_probe

__all__ = [
    "Buffer",
    "Eigenvalue",
    "Estimate",
    "NoiseAhead",
    "PathPoint",
    "Probe",
    "SpectralMeasure",
    "Supervised",
    "load_probe",
    "look_ahead",
    "probe",
    "supervised",
]
