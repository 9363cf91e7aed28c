"""When a run writes its checkpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from lightball.training.folder import Asked, save
from lightball.training.state import TrainingState


@dataclass
class Keeper:
    """Keeps ``state`` in ``folder``, every so many steps and every so many seconds; None: not by these, or nowhere."""

    state: TrainingState
    folder: Path | None
    asked: Asked
    every: int | None
    seconds: float | None
    _kept_at: float = field(init=False)
    _kept_step: int | None = field(init=False)

    def __post_init__(self) -> None:
        self._kept_at = time.monotonic()
        self._kept_step = self.state.step or None  # a run has steps behind it only from a checkpoint

    def is_due(self) -> bool:
        if self.folder is None:
            return False
        by_step = self.every is not None and self.state.step % self.every == 0
        return by_step or (self.seconds is not None and time.monotonic() - self._kept_at >= self.seconds)

    def keep(self) -> None:
        """Write a checkpoint, if there is a folder and this step is not in it yet."""
        if self.folder is not None and self._kept_step != self.state.step:
            save(self.state, self.folder, self.asked)
            self._kept_step, self._kept_at = self.state.step, time.monotonic()
