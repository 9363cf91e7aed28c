"""What an engine is: it computes chunks of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightball.studies.plan import Plan
from lightball.studies.runs import Chunk, Outcome

Finished = tuple[Chunk, list[Outcome]]


class Engine(Protocol):
    """Computes chunks; some of them at once."""

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        """Hand over each chunk with its outcomes, in the order of its runs, as soon as it is finished.

        The next chunk is taken from the iterable only when there is room to compute it, so that an iterable that
        claims chunks from a shared folder claims none in advance. A run that crashes is an outcome (``Outcome.error``)
        and not an exception.
        """
        ...

    def close(self) -> None:
        """Stop at once; what is in flight is dropped, and no process is left behind."""
        ...


@dataclass(frozen=True)
class Job:
    """A task that an engine can run.

    Args:
        task: how reports call it.
        basis: what determines the outcome of a run apart from the run itself, as JSON: it stands in the folder of
            the study, and a study of another basis is refused there.
        make_plan: what it will cost and which runs share a chunk, from the compositions that the folder has already
            (by batch size).
        start: makes the engine; it may keep logs in the folder of the study, which it is given.
    """

    task: str
    basis: Mapping[str, Any]
    make_plan: Callable[[Mapping[int, Mapping[str, Any]]], Plan]
    start: Callable[[Path], Engine]
