"""What an audit found out about a parameter group, and how it is written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from lightball.optim.auditing.words import audit_text

Family = Literal["sgd", "sgdm", "nesterov", "linear, other", "not linear", "unknown"]
Nonlinearity = Literal["clipping", "skipping", "adaptive", "sign", "random", "other"]


@dataclass(frozen=True)
class Audited:
    """What one parameter group of an optimizer really does; numbers that its family does not have are None.

    family: ``sgd``, ``sgdm`` and ``nesterov`` follow `rules.kernel.step`, dampened or not, with coupled or decoupled
        decay. ``linear, other``: linear in gradients and parameters, by another rule or one that changes in time.
        ``not linear``: see ``nonlinearity``. ``unknown``: only a state was there to read.
    nonlinearity: ``clipping``, linear for small gradients only, and all else holds for those; ``skipping``, likewise,
        and large ones move nothing; ``adaptive``, steps do not follow the gradients' size; ``sign``, steps of one
        size; ``random``, the same gradients give other steps; ``other``.
    lr, effective_lr: the kernel's rate, and the total displacement per unit of gradient, lr (1 − dampening)/(1 − μ).
    momentum_active: whether a gradient still moves parameters after its own step, as far as steps and state show it.
    memory_length: 1/(1 − momentum), in steps.
    first_step: how much more the first gradient counts than every other; 1/(1 − dampening) in torch.
    weight_decay: in the optimizer's words, where its steps show it; ``decoupled`` if the weights shrink beside the
        gradients. Without momentum both are the same rule, and it is called coupled.
    decay_per_step: by which part of themselves weights shrink in a step, in steady state.
    clips_at: the size of gradients that ``clipping`` lets through; a note says of what.
    state_saved: whether a checkpoint holds a state of the group's parameters; None for an optimizer in memory.

    Printed, it is what ``lightball audit`` prints.
    """

    group: int
    optimizer: str
    family: Family
    nonlinearity: Nonlinearity | None = None
    lr: float | None = None
    effective_lr: float | None = None
    momentum: float | None = None
    dampening: float | None = None
    nesterov: bool | None = None
    momentum_active: bool | None = None
    memory_length: float | None = None
    first_step: float | None = None
    weight_decay: float | None = None
    decoupled: bool | None = None
    decay_per_step: float | None = None
    maximize: bool | None = None
    clips_at: float | None = None
    state_bytes_per_parameter: float | None = None
    state_saved: bool | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return audit_text([self])


def audit_json(audited: Sequence[Audited]) -> list[dict[str, Any]]:
    """One object a group, with the fields of :class:`Audited`; infinite numbers, as of momentum 1, become null."""
    return [{name: _finite(value) for name, value in asdict(one).items()} for one in audited]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rounded(value: float) -> float:
    """What was measured, without digits that only rounding has made."""
    return float(f"{value:.11g}")


def number(value: Any) -> float | None:
    """What a group says, if it is a number."""
    return float(value) if isinstance(value, (int, float, Tensor)) else None
