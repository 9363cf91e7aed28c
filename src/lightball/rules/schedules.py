"""Schedules: from the step index k = 0, 1, … to the factor that multiplies the base learning rate.

Any callable int → float is a schedule. Those made here are frozen, so they compare, print and pickle.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64

Schedule = Callable[[int], float]

VALID_SPECS = "constant, cosine, linear, step:0.5,0.75:0.1, or one of them after a warm-up, warmup:0.05+cosine"


@dataclass(frozen=True)
class _Constant:
    def __call__(self, k: int) -> float:
        return 1.0


@dataclass(frozen=True)
class _StepDecay:
    milestones: tuple[int, ...]
    gamma: float

    def __call__(self, k: int) -> float:
        return float(self.gamma ** bisect_right(self.milestones, k))


@dataclass(frozen=True)
class _Cosine:
    num_steps: int
    final: float

    def __call__(self, k: int) -> float:
        progress = min(k / self.num_steps, 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class _Linear:
    num_steps: int
    final: float

    def __call__(self, k: int) -> float:
        return 1.0 + (self.final - 1.0) * min(k / self.num_steps, 1.0)


@dataclass(frozen=True)
class _Warmup:
    num_warmup: int
    then: Schedule
    start: float

    def __call__(self, k: int) -> float:
        if k >= self.num_warmup:
            return self.then(k - self.num_warmup)
        return (self.start + (1 - self.start) * k / self.num_warmup) * self.then(0)


def constant() -> Schedule:
    """Factor 1 at every step."""
    return _Constant()


def step_decay(milestones: Sequence[int], gamma: float) -> Schedule:
    """Factor gamma^n after n of the milestones (step indices) are reached, as torch's `MultiStepLR`.

    A milestone given twice counts twice. Raises `InputError` unless the milestones are ≥ 1 and sorted and
    gamma is finite and ≥ 0.
    """
    steps = tuple(milestones)
    if any(m < 1 for m in steps) or any(a > b for a, b in pairwise(steps)):
        raise InputError(f"milestones are {list(steps)}; required are step indices ≥ 1 in order: sort them")
    _require_factor("gamma", gamma)
    return _StepDecay(steps, gamma)


def cosine(num_steps: int, final: float = 0.0) -> Schedule:
    """Factor final + (1 − final)(1 + cos(πk / num_steps))/2, then final; until there `CosineAnnealingLR`."""
    _require_steps("num_steps", num_steps)
    _require_factor("final", final)
    return _Cosine(num_steps, final)


def linear(num_steps: int, final: float = 0.0) -> Schedule:
    """Factor on the straight line from 1 at step 0 to final at num_steps, then final; torch's `LinearLR`."""
    _require_steps("num_steps", num_steps)
    _require_factor("final", final)
    return _Linear(num_steps, final)


def warmup(num_warmup: int, then: Schedule, start: float = 0.0) -> Schedule:
    """A straight line from start · then(0) at step 0 to then(0) at num_warmup, where `then` starts counting.

    At start 0 the first step moves nothing.
    """
    _require_steps("num_warmup", num_warmup)
    _require_factor("start", start)
    return _Warmup(num_warmup, then, start)


def values(schedule: Schedule, num_steps: int) -> Float64[np.ndarray, " num_steps"]:
    """The factors at steps 0 … num_steps − 1. Raises `InputError` if one is negative or not finite."""
    factors = np.array([schedule(k) for k in range(num_steps)], dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(factors) & (factors >= 0)))
    if bad.size:
        raise InputError(
            f"the schedule is {factors[bad[0]]:g} at step {bad[0]}; required is a finite factor ≥ 0 at every "
            "step: correct the schedule"
        )
    return factors


def parse(spec: str, num_steps: int) -> Schedule:
    """The schedule of a run of num_steps steps written as text, positions being fractions of the whole run.

    "constant", "cosine" and "linear" (both to 0 at the end of the run), "step:0.5,0.75:0.1" (× 0.1 at a half
    and at three quarters), and any of them after a warm-up from 0: "warmup:0.05+cosine". Raises `InputError`.
    """
    _require_steps("num_steps", num_steps)
    head, plus, rest = spec.partition("+")
    if not plus:
        return _parse_plain(spec, num_steps, 0, spec)
    kind, _, fraction = head.partition(":")
    if kind != "warmup":
        raise _unknown(spec)
    num_warmup = _position(fraction, num_steps, spec)
    return warmup(num_warmup, _parse_plain(rest, num_steps, num_warmup, spec))


def _parse_plain(part: str, num_steps: int, offset: int, spec: str) -> Schedule:
    """The part after the warm-up, which lasts `offset` steps; fractions stay fractions of the whole run."""
    kind, *arguments = part.split(":")
    match kind, arguments:
        case "constant", []:
            return constant()
        case "cosine", []:
            return cosine(max(1, num_steps - offset))
        case "linear", []:
            return linear(max(1, num_steps - offset))
        case "step", [fractions, gamma]:
            milestones = [_position(f, num_steps, spec) - offset for f in fractions.split(",")]
            if min(milestones) < 0:
                raise InputError(
                    f"schedule '{spec}' has a milestone inside its warm-up; required are milestones after "
                    "it: shorten the warm-up or move the milestone"
                )
            # in a run of few steps positions may coincide
            return step_decay([max(1, m) for m in milestones], _number(gamma, spec))
    raise _unknown(spec)


def _position(fraction: str, num_steps: int, spec: str) -> int:
    """The step index at a fraction of the run, at least 1 and at most num_steps − 1."""
    value = _number(fraction, spec)
    if not 0 < value < 1:
        raise InputError(
            f"schedule '{spec}' has the position {fraction}; required is a fraction of the run between "
            "0 and 1, such as 0.5"
        )
    return min(max(1, round(value * num_steps)), max(1, num_steps - 1))


def _number(text: str, spec: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _unknown(spec) from None


def _unknown(spec: str) -> InputError:
    return InputError(f"unknown schedule '{spec}'; valid are {VALID_SPECS}")


def _require_steps(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} is {value}; required is a whole number ≥ 1")


def _require_factor(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name} is {value:g}; required is a finite factor ≥ 0, such as 0.1")
