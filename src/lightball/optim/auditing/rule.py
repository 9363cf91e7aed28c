"""The linear rule that explains responses: `rules.kernel.step` and decoupled decay, read off and then put to the test.

    x ← (1 − shrink) x        then the kernel's step with the gradient ± g

Read from impulses, with parameters held at 0. An impulse at the first step moves them by −lr (1, μ, μ², …), with
Nesterov by −lr (1 + μ, μ², μ³, …); later ones by 1 − dampening as much, plus what Nesterov adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightball.optim.auditing.responses import LATE, Responses
from lightball.rules import kernel

EXACT = 1e-9  # relative; what float64 leaves of a linear rule, with room
SINGLE = 2e-6  # of a step that computes in float32
_ROUNDING = 1e-14  # of positions of size 1, over one experiment


@dataclass(frozen=True)
class FoundRule:
    """A linear rule in the kernel's words; ``sign`` is −1 where gradients are climbed.

    starts_dampened: the first gradient counts like every other, where dampening is not 0.
    """

    lr: float
    momentum: float
    dampening: float = 0.0
    nesterov: bool = False
    sign: int = 1
    starts_dampened: bool = False
    weight_decay: float = 0.0
    shrink: float = 0.0

    @property
    def effective_lr(self) -> float:
        """The total displacement that a gradient of size 1 causes, the first one apart."""
        if self.momentum == 0:
            return self.lr
        if self.momentum >= 1:
            return math.inf
        kept = (1 - self.dampening) / (1 - self.momentum)
        return self.lr * (1 + self.momentum * kept if self.nesterov else kept)

    @property
    def first_step(self) -> float:
        """How much more the first gradient counts than every other: its first displacement over a later one's."""
        if self.momentum == 0 or self.starts_dampened:
            return 1.0
        later = 1 - self.dampening
        first, later = (1 + self.momentum, 1 + self.momentum * later) if self.nesterov else (1.0, later)
        return first / later if later else math.inf


def find_rule(seen: Responses, lr: float | None, tolerance: float) -> FoundRule | None:
    """The rule that explains all responses within a relative tolerance, or none.

    ``lr`` is what the optimizer says: dampening that also holds at the first step is only a smaller rate otherwise.
    """
    rule = _filter(seen, lr, tolerance)
    if rule is None:
        return None
    candidates = [rule]
    if seen.decay.abs().max() > _ROUNDING:  # coupled first: without momentum both are the same
        coupled, decoupled = rule.sign * _ratio(seen, seen.constant), -_ratio(seen, None)
        candidates = [replace(rule, weight_decay=coupled), replace(rule, shrink=decoupled)]
    return next((whole for whole in candidates if _explains(whole, seen, tolerance)), None)


def _filter(seen: Responses, lr: float | None, tolerance: float) -> FoundRule | None:
    """The rule without decay, from the two impulses."""
    a0, a1, a2 = (_gain(step, seen.impulse) for step in seen.first[:3])
    b0, b1 = (_gain(step, seen.impulse) for step in seen.late[LATE : LATE + 2])
    if a0 == 0:
        return None
    sign = -1 if a0 < 0 else 1
    if abs(a1) <= tolerance**2 * abs(a0):
        return FoundRule(abs(a0), 0.0, sign=sign)
    momentum = a2 / a1
    if abs(a1 - momentum * a0) <= tolerance * abs(a1):
        later = b0 / a0
        matched = lr is not None and abs(abs(b0) - lr * (1 - momentum)) <= tolerance * abs(b0)
        if abs(later - 1) > tolerance:
            return FoundRule(abs(a0), momentum, _clean(1 - later, tolerance), sign=sign)
        if matched and lr is not None:  # the canonical form
            return FoundRule(lr, momentum, momentum, sign=sign, starts_dampened=True)
        return FoundRule(abs(a0), momentum, sign=sign)
    rate = a0 - a1 / momentum
    if rate == 0:
        return None
    first, later = a1 / (rate * momentum**2), b1 / (rate * momentum**2)
    dampens = abs(first - 1) > tolerance
    return FoundRule(
        abs(rate), momentum, _clean(1 - later, tolerance), nesterov=True, sign=sign, starts_dampened=dampens
    )


def _gain(displacement: Tensor, impulse: Tensor) -> float:
    """By how much of the impulse parameters went against it; least squares over elements."""
    return -float(displacement @ impulse) / float(impulse @ impulse)


def _clean(value: float, tolerance: float) -> float:
    return 0.0 if abs(value) <= tolerance else value


def _ratio(seen: Responses, unit: Tensor | None) -> float:
    """The rate of a decay, held at x: of one that acts as a constant gradient does, or at once where unit is none."""
    shape = seen.start.expand_as(seen.decay)
    if unit is not None:
        shape = seen.start * unit / seen.impulse
    return float((seen.decay * shape).sum() / (shape * shape).sum())


def _explains(rule: FoundRule, seen: Responses, tolerance: float) -> bool:
    """Whether the kernel, driven by the same gradients, goes where the optimizer went, freely and held."""
    none = torch.zeros_like(seen.gradients)
    free = _simulated(rule, seen.gradients, seen.start, hold=False)
    decay = _simulated(rule, none, seen.start, hold=True) - seen.start
    pairs = [(free - seen.start, seen.free - seen.start), (decay, seen.decay)]
    rounding = _ROUNDING * max(seen.start.abs().max(), seen.free.abs().max())
    return all(bool((expected - got).abs().max() <= tolerance * got.abs().max() + rounding) for expected, got in pairs)


def _simulated(rule: FoundRule, gradients: Tensor, start: Tensor, hold: bool) -> Tensor:
    hyper = kernel.Hyperparameters(rule.lr, rule.momentum, rule.dampening, rule.weight_decay, rule.nesterov)
    state = kernel.init(start) if rule.starts_dampened else {}
    x, positions = start, []
    for g in gradients:
        x, state = kernel.step((1 - rule.shrink) * (start if hold else x), rule.sign * g, state, hyper)
        positions.append(x)
    return torch.stack(positions)
