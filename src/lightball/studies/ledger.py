"""The outcomes of a comparison, and how missing ones are obtained: found in the folder, computed, or awaited."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Protocol

from lightball.errors import InputError, OutOfTime
from lightball.studies.crashes import complete, lost_seeds, stop_if_all_crash
from lightball.studies.engines.job import Engine
from lightball.studies.plan import Plan
from lightball.studies.runs import Chunk, Outcome, Phase, Run, seeds

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


class Silent:
    """An observer that says nothing."""

    def begin(self, phase: str, work: float) -> None: ...

    def advance(self, work: float) -> None: ...

    def say(self, message: str) -> None: ...


class Chunks(Protocol):
    """The chunks that are finished, and how others learn of them; see :class:`lightball.studies.store.Store`."""

    def plan(self, phase: str, chunks: Mapping[str, Chunk]) -> None: ...

    def load(self, keys: Iterable[str]) -> dict[str, list[Outcome]]: ...

    def claim(self, key: str) -> bool: ...

    def save(self, key: str, chunk: Chunk, outcomes: Sequence[Outcome]) -> list[Outcome]: ...

    def discard(self, key: str) -> bool: ...


class Ledger:
    """Outcomes by run; each chunk is stored as soon as it is finished.

    Several processes may work on one folder: a chunk is claimed before it is computed, and what others claimed is
    awaited, or taken over when they are gone. What is computed is a function of the plan and of outcomes, whatever the
    order in which they came, so that all of them, and the same command started again, see the same chunks.

    Args:
        basis: a hash of what determines the outcomes of runs.
        retry_failed: compute stored chunks again in which a run crashed.
        deadline: a ``time.time()`` after which no chunk starts.
        stoppable: the engine stops chunks at the deadline by itself and can go on with them; if not, none starts that
            would not end before it by the plan's estimate.
    """

    def __init__(
        self,
        plan: Plan,
        basis: str,
        engine: Engine,
        store: Chunks,
        observer: Observer,
        retry_failed: bool = False,
        deadline: float | None = None,
        stoppable: bool = False,
    ) -> None:
        self.computed = 0
        self.reused = 0
        self._plans = {batch.batch_size: batch for batch in plan.batches}
        self._basis = basis
        self._engine = engine
        self._store = store
        self._observer = observer
        self._retry_failed = retry_failed
        self._deadline = deadline
        self._stoppable = stoppable
        self._outcomes: dict[tuple[int, Phase], dict[Run, Outcome]] = defaultdict(dict)
        self._lost: dict[tuple[int, Phase], set[int]] = defaultdict(set)

    @property
    def crashed(self) -> int:
        """How many of the known runs ended without a result."""
        return sum(o.error is not None for known in self._outcomes.values() for o in known.values())

    def outcomes(self, batch_size: int, *phases: Phase) -> dict[Run, Outcome]:
        """All known outcomes at a batch size, or those of some phases, failed ones with what they score."""
        tuned, confirmed = self._outcomes[batch_size, "tune"], self._outcomes[batch_size, "confirm"]
        known = complete({**tuned, **confirmed}, tuned.values())
        wanted = [run for phase in phases for run in self._outcomes[batch_size, phase]]
        return {run: known[run] for run in wanted} if phases else known

    def seeds(self, batch_size: int, phase: Phase, num_seeds: int) -> list[int]:
        """The first seeds of a phase, without lost ones.

        Where too many are, tuning keeps them, for then no rate can be chosen; a comparison cannot go on.

        Raises:
            InputError: for "confirm", where more than one is lost for each that is needed.
        """
        lost = self._lost[batch_size, phase]
        candidates = seeds(phase, (1 + _MOST_LOST) * num_seeds)
        usable = [seed for seed in candidates if seed not in lost]
        if len(usable) < num_seeds and phase == "confirm":
            raise InputError(
                f"at batch size {batch_size} every run crashed on {len(lost)} seeds, the last with: "
                f"{self.lost(batch_size)[1]} (if the machine was at fault, run the same command again with "
                "--retry-failed)"
            )
        return [*usable, *(seed for seed in candidates if seed in lost)][:num_seeds]

    def lost(self, batch_size: int) -> tuple[int, str | None]:
        """How many seeds are lost, and an error on one of them."""
        lost = self._lost[batch_size, "tune"] | self._lost[batch_size, "confirm"]
        known = self._outcomes[batch_size, "tune"] | self._outcomes[batch_size, "confirm"]
        errors = [known[run].error for run in sorted(known) if run.seed in lost and known[run].error]
        return len(lost), errors[-1] if errors else None

    def obtain(
        self, name: str, phase: Phase, pairs: Callable[[], Pairs], witness: Callable[[Run], bool] = lambda run: True
    ) -> None:
        """Make the outcomes of all runs of ``pairs()`` known, a call that asks :meth:`seeds` for its seeds.

        A seed is lost if every run on it that is a ``witness`` crashed.

        Raises:
            InputError: the engine or the store cannot go on; or nearly everything crashes.
            OutOfTime: the deadline does not leave the time for what is missing.
        """
        while chunks := self._missing(pairs(), phase):
            by_key = {chunk.key(self._basis): chunk for chunk in chunks}
            self._observer.begin(name, sum(map(self._work, chunks)))
            self._store.plan(name, by_key)
            self._fetch(name, by_key)
            for b in {chunk.batch_size for chunk in chunks}:
                self._lost[b, phase] = lost_seeds(o for r, o in self._outcomes[b, phase].items() if witness(r))

    def _missing(self, pairs: Pairs, phase: Phase) -> list[Chunk]:
        """Chunks of the runs that are not known yet."""
        wanted: set[Run] = set()
        missing: dict[int, list[list[Run]]] = {}
        for pair in pairs:
            new = [run for run in pair if run not in self._outcomes[run.batch_size, phase] and run not in wanted]
            wanted.update(new)
            if new:
                missing.setdefault(new[0].batch_size, []).append(new)
        packed = [self._plans[b].chunks(of_batch, phase) for b, of_batch in missing.items()]
        # Batch sizes in turn, so that workers that start together compile different steps.
        return [chunk for chunk in chain.from_iterable(zip_longest(*packed)) if chunk is not None]

    def _fetch(self, name: str, missing: dict[str, Chunk]) -> None:
        self._find(missing)
        while missing:
            stopped = not self._compute(missing)
            self._find(missing)
            if missing and (stopped or not any(map(self._in_time, missing.values()))):
                left = sum(len(chunk.runs) for chunk in missing.values())
                missed = "1 run is" if left == 1 else f"{left:,} runs are"
                raise OutOfTime(f"the time budget is spent: {name}, {missed} missing")
            if missing:  # others compute the rest
                time.sleep(_POLL)

    def _compute(self, missing: dict[str, Chunk]) -> bool:
        """Compute what nobody else does and the time allows; whether the engine stopped none of it."""
        try:
            for chunk, computed in self._engine.compute(self._claimed(missing)):
                key = chunk.key(self._basis)
                outcomes = self._store.save(key, chunk, computed)
                self.computed += len(outcomes)
                self._take(missing.pop(key), outcomes)
                stop_if_all_crash(o for known in self._outcomes.values() for o in known.values())
        except OutOfTime:
            return False
        return True

    def _claimed(self, missing: dict[str, Chunk]) -> Iterator[Chunk]:
        """Chunks for this process to compute, each claimed when the engine takes it."""
        for key, chunk in list(missing.items()):
            if key in missing and self._in_time(chunk) and self._store.claim(key):
                yield chunk

    def _in_time(self, chunk: Chunk) -> bool:
        """Whether a chunk may start now."""
        if self._deadline is None:
            return True
        seconds = self._plans[chunk.batch_size].seconds_per_run or 0.0
        return time.time() + (0.0 if self._stoppable else seconds * len(chunk.runs)) < self._deadline

    def _find(self, missing: dict[str, Chunk]) -> None:
        """Take what the folder has."""
        for key, outcomes in self._store.load(list(missing)).items():
            if self._retry_failed and any(o.error for o in outcomes):
                if self._store.discard(key):
                    continue
                outcomes = self._store.load([key]).get(key, outcomes)  # another process has retried it
            self.reused += len(outcomes)
            self._take(missing.pop(key), outcomes)

    def _take(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        self._outcomes[chunk.batch_size, chunk.phase].update({outcome.run: outcome for outcome in outcomes})
        self._observer.advance(self._work(chunk))

    def _work(self, chunk: Chunk) -> float:
        return len(chunk.runs) * (self._plans[chunk.batch_size].seconds_per_run or 1.0)
