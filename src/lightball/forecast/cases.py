"""What is asked of a forecast: rates and batch sizes, one momentum, a number of steps, and how batches are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightball.errors import InputError
from lightball.forecast.transfer import Linear, Shuffled, memory_of

if TYPE_CHECKING:
    from jaxtyping import Float64, Int

    from lightball.oracles import SamplingKind
    from lightball.probe import Probe


@dataclass(frozen=True)
class Cases:
    """Effective rates and batch sizes, pair by pair, and what they have in common; see :func:`cases_of`."""

    effective_lr: Float64[np.ndarray, "case"]
    batch_size: Int[np.ndarray, "case"]
    momentum: float
    num_steps: int
    shuffled: Shuffled | None

    @property
    def horizon(self) -> Float64[np.ndarray, "case"]:
        """Flow time ηK."""
        return self.effective_lr * self.num_steps

    @property
    def memory(self) -> Float64[np.ndarray, "case"]:
        """τ = ηβ(1 − βᴷ)/(1 − β): how far SGDM is behind at the end, in flow time."""
        return self.memory_after(self.num_steps)

    def memory_after(self, num_steps: int) -> Float64[np.ndarray, "case"]:
        """τ after so many steps."""
        return self.effective_lr * memory_of(self.momentum, num_steps)

    def linear(self, curvature: Float64[np.ndarray, "node"], momentum: float) -> Linear:
        """The step of SGD (momentum 0) or SGDM at these curvatures."""
        return Linear(curvature, self.effective_lr, np.full_like(self.effective_lr, momentum))


def cases_of(
    probe: Probe,
    effective_lr: Sequence[float],
    batch_size: Sequence[int],
    momentum: float,
    num_steps: int,
    sampling: SamplingKind,
) -> Cases:
    """The cases, checked.

    Raises:
        InputError: a rate that is no finite number above 0, a momentum not in [0, 1), a batch size below 1 or beyond
            the training set, fewer than one step, or an unknown sampling.
    """
    if not (len(effective_lr) and len(batch_size)):
        raise InputError("there is nothing to forecast: give at least one effective_lr and one batch_size")
    for rate in effective_lr:
        if not (_is_number(rate) and rate > 0):
            raise InputError(f"effective_lr is {rate!r}, but must be a finite number above 0")
    if not (_is_number(momentum) and 0 <= momentum < 1):
        raise InputError(f"momentum is {momentum!r}, but must be from 0 up and below 1")
    for size in batch_size:
        if not (_is_number(size) and 1 <= size <= probe.training_examples and size == int(size)):
            raise InputError(
                f"batch_size is {size!r}, but must be a whole number from 1 to the {probe.training_examples} examples "
                "of the training set"
            )
    if not (_is_number(num_steps) and num_steps >= 1 and num_steps == int(num_steps)):
        raise InputError(f"num_steps is {num_steps!r}, but must be a whole number from 1 up")
    if sampling not in ("iid", "shuffle"):
        raise InputError(f"sampling is {sampling!r}, but must be 'shuffle' (without replacement) or 'iid' (with)")
    sizes = np.asarray(batch_size, dtype=np.int64)
    shuffled = Shuffled(probe.training_examples, sizes) if sampling == "shuffle" else None
    return Cases(np.asarray(effective_lr, dtype=np.float64), sizes, float(momentum), int(num_steps), shuffled)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))
