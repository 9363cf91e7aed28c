"""Dynamic loss scaling: keeps gradients within the range of float16."""

from __future__ import annotations

from dataclasses import dataclass

GOOD_STEPS_TO_DOUBLE = 2000


@dataclass(frozen=True)
class LossScale:
    """The factor of the loss whose gradients are computed; they are divided by it before they are used.

    Gradients below 6e-8 are 0 in float16, and those above 65,504 infinite. The scale keeps close below the latter: it
    halves whenever a gradient is not finite, and doubles after 2,000 steps in which all were.
    """

    value: float = 2.0**16
    good_steps: int = 0

    def after(self, finite: bool) -> LossScale:
        """The scale of the next step."""
        if not finite:
            return LossScale(self.value / 2)
        if self.good_steps + 1 == GOOD_STEPS_TO_DOUBLE:
            return LossScale(self.value * 2)
        return LossScale(self.value, self.good_steps + 1)

    @property
    def exhausted(self) -> bool:
        """Below 1 it is not the scale that makes gradients overflow."""
        return self.value < 1
