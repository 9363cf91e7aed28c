"""A run and what came of it; a chunk of runs that are computed together."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from lightball.oracles import seed_of

Phase = Literal["tune", "confirm"]
Measure = Literal["train_loss", "validation_accuracy", "test_accuracy"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True, order=True)
class Run:
    """One training run. Runs of a pair differ in ``momentum`` and perhaps in the rate, never in ``seed``.

    ``momentum`` 0 is SGD. ``seed`` determines the initial weights and, with the batch size, the data order.
    """

    batch_size: int
    effective_lr: float
    seed: int
    momentum: float


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    ``curve`` is the training loss before training and after each epoch, over all training examples. A run has failed
    if its loss stopped being finite (``failed_at``: the step) or ended at or above the loss it started from (past
    the edge of stability SGD often collapses to chance at a finite loss).

    ``error`` is the last error of a run that crashed instead: a worker that died, a script that ended with an exit
    code. Its values are NaN; what it scores is found by :func:`lightball.studies.crashes.complete`.
    """

    run: Run
    curve: tuple[float, ...]
    untrained: dict[Measure, float]
    final: dict[Measure, float]
    failed_at: int | None = None
    error: str | None = None

    @property
    def failed(self) -> bool:
        loss = self.final["train_loss"]
        return not math.isfinite(loss) or loss >= self.untrained["train_loss"]  # False where that is not known, NaN

    def score(self, measure: Measure) -> float:
        """The final value; a failed run scores what the untrained model does."""
        value = self.untrained[measure] if self.failed else self.final[measure]
        return value if math.isfinite(value) else self.untrained[measure]


@dataclass(frozen=True)
class Chunk:
    """Runs of one phase that are computed and stored together, ``width`` of them at a time.

    The plan fixes it, since which runs share a batched product changes their rounding.
    """

    runs: tuple[Run, ...]
    width: int = 1
    compiled: bool = False
    phase: Phase = "tune"

    @property
    def batch_size(self) -> int:
        return self.runs[0].batch_size

    def key(self, basis: str) -> str:
        """A hash of what the plan knows to determine the outcomes: ``basis`` (task, settings, versions), the runs."""
        return hash_of({"basis": basis, "chunk": asdict(self)})


def hash_of(value: object) -> str:
    """16 hexadecimal digits that stand for a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def seeds(phase: Phase, count: int) -> list[int]:
    """The first ``count`` seeds of a phase; those of tuning and of confirmation have nothing in common."""
    return [seed_of(phase=phase, index=i) for i in range(count)]


def crashed(run: Run, error: str) -> Outcome:
    """The outcome of a run that ended without a result."""
    nothing: dict[Measure, float] = dict.fromkeys(MEASURES, math.nan)
    return Outcome(run, (), dict(nothing), dict(nothing), error=error)


def pack(pairs: Iterable[Sequence[Run]], width: int, compiled: bool, phase: Phase) -> list[Chunk]:
    """Chunks of at most ``width`` runs, or of one pair if that is more; runs of a pair stay together and in order."""
    chunks: list[list[Run]] = []
    for pair in pairs:
        if not chunks or len(chunks[-1]) + len(pair) > width:
            chunks.append([])
        chunks[-1].extend(pair)
    return [Chunk(tuple(runs), width, compiled, phase) for runs in chunks]
