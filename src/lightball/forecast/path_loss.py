"""The loss along a run as a function of flow time, from the points that were recorded, and beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightball.forecast.phase import CurvePoint

if TYPE_CHECKING:
    from jaxtyping import Float64

_TAIL = 4.0  # the slope of the tail is that of the last factor of 4 in time


class PathLoss:
    """L(T), linear in (log T, log L) between the points and a power law beyond the last; it never rises.

    At small rates runs of any rate, batch size and momentum meet at the same flow time T = Σ η, which is what makes one
    curve speak for all of them. Before the first point it is linear in T.

    Args:
        points: of the curve.
        tail: multiplies the slope of the power law beyond the last point.

    Raises:
        ValueError: fewer than two points of different times, or losses that are not above 0.
    """

    def __init__(self, points: Sequence[CurvePoint], tail: float = 1.0) -> None:
        ordered = sorted({p.time: p for p in points}.values(), key=lambda p: p.time)
        times = np.array([p.time for p in ordered])
        losses = np.minimum.accumulate([p.loss for p in ordered])
        if len(times) < 2 or not (losses > 0).all():
            raise ValueError("a curve needs two points of different times, and losses above 0")
        self.start = float(losses[0])
        self.lowest = float(losses[-1])
        self.horizon = float(times[-1])
        self._first = (float(times[0]), float(losses[0]))
        positive = times > 0
        self._log_times, self._log_losses = np.log(times[positive]), np.log(losses[positive])
        late = self._log_times >= self._log_times[-1] - np.log(_TAIL)
        if late.sum() < 2:
            late = np.zeros_like(late)
            late[-2:] = True
        slope = np.polyfit(self._log_times[late], self._log_losses[late], 1)[0] if late.sum() > 1 else 0.0
        self.slope = min(0.0, float(slope)) * tail

    def __call__(self, time: Float64[np.ndarray, "*time"] | float) -> Float64[np.ndarray, "*time"]:
        """The loss at flow times from 0 up."""
        time = np.maximum(np.asarray(time, dtype=float), 0.0)
        log_time = np.log(np.maximum(time, 1e-300))
        between = np.interp(log_time, self._log_times, self._log_losses)
        beyond = self._log_losses[-1] + self.slope * (log_time - self._log_times[-1])
        loss = np.exp(np.where(log_time > self._log_times[-1], beyond, between))
        begin, highest = self._first
        second = float(np.exp(self._log_times[0]))
        early = np.clip((time - begin) / max(second - begin, 1e-300), 0.0, 1.0)
        linear = highest + early * (float(np.exp(self._log_losses[0])) - highest)
        result: np.ndarray = np.where(time < second, linear, loss)
        return result

    def time_of(self, loss: float) -> float:
        """The first flow time at which the loss is so low; 0 for one above the start, inf for one never reached."""
        if loss >= self.start:
            return 0.0
        if loss < self.lowest:
            return (
                float(np.exp(self._log_times[-1] + np.log(loss / self.lowest) / self.slope)) if self.slope else np.inf
            )
        begin, highest = self._first
        second, after = float(np.exp(self._log_times[0])), float(np.exp(self._log_losses[0]))
        if loss > after:
            return begin + (second - begin) * (highest - loss) / (highest - after)
        return float(np.exp(np.interp(-np.log(loss), -self._log_losses, self._log_times)))
