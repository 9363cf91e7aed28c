"""The outcomes of a comparison, and how missing ones are obtained: found in the folder, computed, or awaited."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Protocol

from lightball.errors import InputError
from lightball.oracles import seed_of
from lightball.studies.crashes import complete, lost_seeds, stop_if_all_crash
from lightball.studies.engines.job import Engine
from lightball.studies.plan import Plan
from lightball.studies.runs import Chunk, Outcome, Phase, Run
from lightball.studies.store import Store

_POLL = 0.2  # seconds between looks at what other processes have finished
_MOST_LOST = 1  # seeds that are replaced, for each one that is needed
Pairs = Iterable[Sequence[Run]]


class Observer(Protocol):
    """Told how a comparison goes on."""

    def begin(self, phase: str, work: float) -> None:
        """A phase starts, with this much work: seconds by the plan's estimate, or runs where it has none."""
        ...

    def advance(self, work: float) -> None:
        """Part of it is done: a chunk."""
        ...

    def say(self, message: str) -> None:
        """Something that the user should know, such as a damaged file that was set aside."""
        ...


class Ledger:
    """Outcomes by run; each chunk is stored as soon as it is finished.

    Several processes may work on one folder: a chunk is claimed before it is computed, and what others claimed is
    awaited, or taken over when they are gone. What is computed is a pure function of the plan and of outcomes, so that
    all of them, and the same command started again, see the same chunks.

    Args:
        basis: a hash of what determines the outcomes of runs.
        retry_failed: compute stored chunks again in which a run crashed.
    """

    def __init__(
        self, plan: Plan, basis: str, engine: Engine, store: Store, observer: Observer, retry_failed: bool = False
    ) -> None:
        self.computed = 0
        self.reused = 0
        self._plans = {batch.batch_size: batch for batch in plan.batches}
        self._basis = basis
        self._engine = engine
        self._store = store
        self._observer = observer
        self._retry_failed = retry_failed
        self._outcomes: dict[int, dict[Run, Outcome]] = defaultdict(dict)
        self._lost: dict[int, set[int]] = defaultdict(set)
        self._retried: set[str] = set()

    def outcomes(self, batch_size: int) -> dict[Run, Outcome]:
        """All known outcomes at a batch size, failed ones with what they score."""
        return complete(self._outcomes[batch_size])

    def seeds(self, batch_size: int, phase: Phase, num_seeds: int) -> list[int]:
        """The first seeds of a phase, without those on which every run crashed.

        Where too many do, tuning keeps them, for then no rate can be chosen; a comparison cannot go on.

        Raises:
            InputError: for "confirm", where more than one crashes for each that is needed.
        """
        lost = self._lost[batch_size]
        candidates = [seed_of(phase=phase, index=i) for i in range((1 + _MOST_LOST) * num_seeds)]
        usable = [seed for seed in candidates if seed not in lost]
        if len(usable) < num_seeds and phase == "confirm":
            raise InputError(
                f"at batch size {batch_size} every run crashed on {len(lost)} seeds, the last with: "
                f"{self.lost(batch_size)[1]} (mend it and run the same command again with --retry-failed)"
            )
        return [*usable, *(seed for seed in candidates if seed in lost)][:num_seeds]

    def lost(self, batch_size: int) -> tuple[int, str | None]:
        """How many seeds there are on which every run crashed, and the last error on them."""
        lost = self._lost[batch_size]
        errors = [o.error for o in self._outcomes[batch_size].values() if o.run.seed in lost]
        return len(lost), errors[-1] if errors else None

    def obtain(self, name: str, phase: Phase, pairs: Callable[[], Pairs]) -> None:
        """Make the outcomes of all runs of ``pairs()`` known, a call that asks :meth:`seeds` for its seeds.

        Raises:
            InputError: the engine or the store cannot go on; or nearly everything crashes.
        """
        while chunks := self._missing(pairs(), phase):
            by_key = {chunk.key(self._basis): chunk for chunk in chunks}
            self._observer.begin(name, sum(map(self._work, chunks)))
            self._store.plan(name, by_key)
            self._fetch(by_key)
            for b in {chunk.batch_size for chunk in chunks}:
                self._lost[b] = lost_seeds(self._outcomes[b].values())

    def _missing(self, pairs: Pairs, phase: Phase) -> list[Chunk]:
        """Chunks of the runs that are not known yet."""
        wanted: set[Run] = set()
        missing: dict[int, list[list[Run]]] = {}
        for pair in pairs:
            new = [run for run in pair if run not in self._outcomes[run.batch_size] and run not in wanted]
            wanted.update(new)
            if new:
                missing.setdefault(new[0].batch_size, []).append(new)
        packed = [self._plans[b].chunks(of_batch, phase) for b, of_batch in missing.items()]
        # Batch sizes in turn, so that workers that start together compile different steps.
        return [chunk for chunk in chain.from_iterable(zip_longest(*packed)) if chunk is not None]

    def _fetch(self, missing: dict[str, Chunk]) -> None:
        self._find(missing)
        while missing:
            for chunk, outcomes in self._engine.compute(self._claimed(missing)):
                key = chunk.key(self._basis)
                self._store.save(key, chunk, outcomes)
                self.computed += len(outcomes)
                self._take(missing.pop(key), outcomes)
            self._find(missing)
            if missing:  # others compute the rest
                time.sleep(_POLL)

    def _claimed(self, missing: dict[str, Chunk]) -> Iterator[Chunk]:
        """Chunks for this process to compute, each claimed when the engine takes it."""
        for key, chunk in list(missing.items()):
            if key in missing and self._store.claim(key):
                yield chunk

    def _find(self, missing: dict[str, Chunk]) -> None:
        """Take what the folder has."""
        for key, outcomes in self._store.load(list(missing)).items():
            if self._retry_failed and key not in self._retried and any(o.error for o in outcomes):
                self._retried.add(key)
                self._store.discard(key)
                continue
            self.reused += len(outcomes)
            self._take(missing.pop(key), outcomes)

    def _take(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        known = self._outcomes[chunk.batch_size]
        known.update({outcome.run: outcome for outcome in outcomes})
        self._observer.advance(self._work(chunk))
        if any(outcome.error for outcome in outcomes):
            stop_if_all_crash(outcome for known in self._outcomes.values() for outcome in known.values())

    def _work(self, chunk: Chunk) -> float:
        return len(chunk.runs) * (self._plans[chunk.batch_size].seconds_per_run or 1.0)
