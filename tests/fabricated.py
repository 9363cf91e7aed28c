"""Studies without training: outcomes made up from a known distribution, behind the Engine Protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightball.studies import request
from lightball.studies.comparison import Comparison
from lightball.studies.engines.job import Finished
from lightball.studies.ledger import Ledger, Observer, Silent
from lightball.studies.plan import BatchPlan, Plan
from lightball.studies.result import BatchResult, Result
from lightball.studies.result_json import as_json
from lightball.studies.runs import Chunk, Outcome, Run, hash_of, seeds
from lightball.studies.settings import Settings
from lightball.studies.store import Store

UNTRAINED_LOSS, BEST_LOSS = 2.3, 0.3
UNTRAINED_ACCURACY, BEST_ACCURACY = 0.1, 0.9
MARGIN_LOSS = 0.01 * (UNTRAINED_LOSS - BEST_LOSS)
MARGIN_ACCURACY = 0.005
BASIS = {"made": "up", "device": "none"}
ABOUT = {"versions": {"lightball": "0.1.0"}, "hardware": "imaginary"}
TUNE, CONFIRM = set(seeds("tune", 200)), set(seeds("confirm", 200))


def outcome(
    run: Run,
    loss: float,
    accuracy: float = BEST_ACCURACY,
    failed_at: int | None = None,
    untrained_loss: float = UNTRAINED_LOSS,
) -> Outcome:
    """A run of two epochs that ends at this loss and accuracy, on validation and test data alike."""
    return Outcome(
        run,
        (untrained_loss, (untrained_loss + loss) / 2, loss),
        {"train_loss": untrained_loss, "validation_accuracy": UNTRAINED_ACCURACY, "test_accuracy": UNTRAINED_ACCURACY},
        {"train_loss": loss, "validation_accuracy": accuracy, "test_accuracy": accuracy},
        failed_at,
    )


def broken(run: Run) -> Outcome:
    """A run whose loss stopped being finite."""
    return outcome(run, math.nan, math.nan, failed_at=3)


@dataclass(frozen=True)
class Effect:
    """What momentum does: the mean and deviation of a pair's difference, in margins, for loss and accuracy."""

    mean: float = 0.0
    deviation: float = 0.1


@dataclass(frozen=True)
class World:
    """Losses with their minimum at ``best_lr``; pairs share their seed's noise and differ by the effect.

    A wrong rate costs 0.2 in loss for each factor 2, at most 1.9; runs from ``stable_below`` up fail.
    """

    effects: Mapping[tuple[int, float], Effect] = field(default_factory=dict)
    best_lr: float = 0.4
    stable_below: float = math.inf

    def __call__(self, run: Run) -> Outcome:
        if run.effective_lr >= self.stable_below:
            return broken(run)
        shared = np.random.default_rng([run.seed, run.batch_size]).normal()
        detuned = min(0.2 * abs(math.log2(run.effective_lr / self.best_lr)), 1.9)
        effect = self.effects.get((run.batch_size, run.momentum), Effect()) if run.momentum else Effect(0, 0)
        own = np.random.default_rng([run.seed, run.batch_size, int(1e6 * run.momentum)]).normal()
        value = effect.mean + effect.deviation * own if run.momentum else 0.0
        # In tuning momentum has no effect of its own, so that every rule selects the same rate and margins are known.
        if run.seed in TUNE:
            value, shared = 0.0, 0.0
        loss = BEST_LOSS + detuned + 0.05 * shared * (shared > 0) - MARGIN_LOSS * value
        return outcome(run, loss, BEST_ACCURACY - 0.1 * detuned + MARGIN_ACCURACY * value)


class FakeEngine:
    """Computes a chunk by asking the world for each of its runs; remembers the chunks."""

    def __init__(self, world: Callable[[Run], Outcome], before: Callable[[Chunk], None] | None = None) -> None:
        self.world = world
        self.before = before
        self.chunks: list[Chunk] = []

    def compute(self, chunks: Iterable[Chunk]) -> Iterator[Finished]:
        for chunk in chunks:
            if self.before:
                self.before(chunk)
            self.chunks.append(chunk)
            yield chunk, [self.world(run) for run in chunk.runs]

    def close(self) -> None: ...

    @property
    def runs(self) -> list[Run]:
        return [run for chunk in self.chunks for run in chunk.runs]


def plan_for(settings: Settings, width: int = 28) -> Plan:
    return Plan(tuple(BatchPlan(b, 20, width, False, 10, (10, 20), 0.01) for b in settings.batch_sizes), 1)


def study(
    settings: Settings,
    world: Callable[[Run], Outcome] | FakeEngine,
    folder: Path,
    width: int = 28,
    retry_failed: bool = False,
    task: str = "made-up",
    observer: Observer | None = None,
) -> tuple[Result, FakeEngine]:
    """The result of a comparison in this world, and the engine that computed it."""
    engine = world if isinstance(world, FakeEngine) else FakeEngine(world)
    with Store(folder, BASIS, {}) as store:
        plan = plan_for(settings, width)
        asked = request.new(task, settings, plan, ABOUT, ["lightball", "compare", task])
        store.save_json(request.NAME, request.as_json(asked))
        ledger = Ledger(plan, hash_of(BASIS), engine, store, observer or Silent(), retry_failed)
        batches: tuple[BatchResult, ...] = Comparison(settings, ledger, store).run()
        result = Result(task, settings, batches, 1.0, ledger.computed, ledger.reused, str(folder), ledger.crashed)
        store.save_json("result.json", as_json(result))
    return result, engine
