"""Phases of a training run: where it was probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightball.probe.record import Probe


@dataclass(frozen=True)
class Phase:
    """A probe and when it was taken: ``time`` is the flow time Σ η since the start.

    ``weights`` is the state dict that was probed, on the CPU, where it was kept.
    """

    name: str
    time: float
    probe: Probe
    weights: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class CurvePoint:
    """Training loss over all examples at a flow time, and the largest curvature there where it was measured."""

    time: float
    loss: float
    sharpness: float | None = None


@dataclass(frozen=True)
class Trial:
    """SGD tried for a few steps from the start at one rate; ``loss`` is the mean it came to, inf if a run failed."""

    effective_lr: float
    num_steps: int
    loss: float


@dataclass(frozen=True)
class Phases:
    """The phases of a run in the order of time, and its loss curve.

    ``trials`` are short runs of SGD at rates beyond 2/λ_max, which tell how soft that limit is for the model.
    ``parameter_bytes`` are those of the trainable parameters, in their own precision: one momentum buffer.
    ``from_start``: the run began from initial weights, and not at a checkpoint.
    """

    phases: tuple[Phase, ...]
    curve: tuple[CurvePoint, ...] = ()
    trials: tuple[Trial, ...] = ()
    parameter_bytes: int | None = None
    from_start: bool = True

    @property
    def main(self) -> Phase:
        """The one that advice at the user's setting is about: the middle one."""
        return self.phases[len(self.phases) // 2]


def as_phases(given: Phases | Sequence[Phase] | Probe) -> Phases:
    """The same for what a caller may have: phases with their curve, phases alone, or a single probe."""
    if isinstance(given, Phases):
        return given
    if isinstance(given, Probe):
        return Phases((Phase("checkpoint", 0.0, given),), from_start=False)
    return Phases(tuple(sorted(given, key=lambda phase: phase.time)))
