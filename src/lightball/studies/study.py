"""A study as its folder tells it: the comparison that was asked for, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightball.errors import InputError
from lightball.studies import request
from lightball.studies.comparison import Comparison
from lightball.studies.crashes import stop_if_all_crash
from lightball.studies.engines.job import Finished
from lightball.studies.ledger import Ledger, Silent
from lightball.studies.request import Request
from lightball.studies.result import BatchResult, Result
from lightball.studies.runs import Chunk, Outcome, Run, hash_of
from lightball.studies.store import Damage
from lightball.studies.store.disk import DamagedError, read_sealed
from lightball.studies.store.stored import Stored
from lightball.studies.tuning import Choice


@dataclass(frozen=True)
class BatchState:
    """How far a study is at one batch size.

    ``tuned`` and ``confirmed`` have the finished runs of the two phases, failed ones with what they score; ``choices``
    the selected rates by momentum, empty while rates are tuned; ``result`` is that of the last stage all of whose runs
    are finished, None before. ``finished``: nothing is missing. ``stopped``: why the comparison cannot go on.
    """

    batch_size: int
    tuned: Mapping[Run, Outcome]
    confirmed: Mapping[Run, Outcome]
    choices: Mapping[float, Choice]
    result: BatchResult | None
    finished: bool
    stopped: str | None = None


@dataclass(frozen=True)
class Study:
    """What the folder of a comparison holds.

    ``basis`` determines the outcome of a run. ``seconds`` is the time of all commands that computed runs in the folder,
    None if it is not known (one that was killed told none).
    """

    folder: Path
    request: Request
    basis: Mapping[str, Any]
    batches: tuple[BatchState, ...]
    damaged: tuple[Damage, ...]
    seconds: float | None

    @property
    def finished(self) -> bool:
        return all(batch.finished for batch in self.batches)

    @property
    def num_runs(self) -> int:
        """Finished runs that belong to the comparison."""
        return sum(len(batch.tuned) + len(batch.confirmed) for batch in self.batches)

    @property
    def result(self) -> Result:
        """What is found so far, with the batch sizes that have a verdict, be it undecided."""
        judged = tuple(batch.result for batch in self.batches if batch.result)
        crashed = sum(
            outcome.error is not None
            for batch in self.batches
            for outcome in (*batch.tuned.values(), *batch.confirmed.values())
        )
        asked = self.request
        seconds = self.seconds or 0.0
        return Result(asked.task, asked.settings, judged, seconds, 0, self.num_runs, str(self.folder), crashed)


def read_study(folder: str | Path, asked: Request | None = None) -> Study:
    """The last comparison of a folder, from what is finished there; no run is changed.

    Args:
        folder: of a study.
        asked: another comparison that was asked for in the folder; default the last one.

    The flow of the comparison is followed through the finished chunks up to the first that is missing, at each batch
    size, so that what is said is what :func:`lightball.compare` says, or would say if it stopped there.

    Raises:
        InputError: there is no such folder, it holds no study, or no finished run, a newer version wrote it, or a file
            cannot be read.
    """
    folder = Path(folder)
    stored = Stored(folder)
    asked = asked or request.read(folder)
    if not stored.num_runs:
        damage = f"; {len(stored.damaged)} damaged files are not believed" if stored.damaged else ""
        raise InputError(f"the folder {str(folder)!r} holds no finished run yet{damage}: run the command of the study")
    batches = tuple(_follow(asked, stored, b) for b in asked.settings.batch_sizes)
    try:
        stop_if_all_crash(o for b in batches for o in (*b.tuned.values(), *b.confirmed.values()))
    except InputError as error:
        batches = tuple(replace(b, stopped=str(error)) for b in batches)
    return Study(folder, asked, stored.study, batches, stored.damaged, _seconds(folder))


class _MissingError(Exception):
    """A run that the comparison needs is not finished."""


class _Nobody:
    """An engine that computes nothing."""

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        raise _MissingError

    def close(self) -> None: ...


def _follow(asked: Request, stored: Stored, batch_size: int) -> BatchState:
    ledger = Ledger(asked.plan, hash_of(stored.study), _Nobody(), stored, Silent())
    comparison = Comparison(asked.settings, ledger, stored, (batch_size,))
    finished, stopped = False, None
    try:
        comparison.run()
        finished = True
    except _MissingError:
        pass
    except InputError as error:
        stopped = str(error)
    return BatchState(
        batch_size,
        ledger.outcomes(batch_size, "tune"),
        ledger.outcomes(batch_size, "confirm"),
        comparison.choices.get(batch_size, {}),
        comparison.results.get(batch_size),
        finished,
        stopped,
    )


def _seconds(folder: Path) -> float | None:
    try:
        there = read_sealed(folder / request.TIME) or {}
    except DamagedError:
        return None
    seconds = there.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None
