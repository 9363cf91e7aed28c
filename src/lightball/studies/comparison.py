"""The comparison of SGD with SGDM: tune both, then confirm on fresh seeds until the verdict is clear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Protocol

from lightball.studies import tuning
from lightball.studies.engine import Engine
from lightball.studies.judging import judge
from lightball.studies.plan import Plan
from lightball.studies.result import JUDGED, BatchResult
from lightball.studies.runs import Chunk, Outcome, Run, pack, seeds
from lightball.studies.settings import Settings
from lightball.studies.store import Store

SGD = 0.0


class Observer(Protocol):
    """Told how a comparison goes on."""

    def begin(self, phase: str, work: float) -> None:
        """A phase starts, with this many seconds of work by the plan's estimate."""
        ...

    def advance(self, work: float) -> None:
        """Part of it is done."""
        ...


class Comparison:
    """Runs a plan, chunk by chunk, each stored at once; what the store has already is not computed again.

    The order of things is a pure function of settings and outcomes, so that the same command takes the same chunks.
    """

    def __init__(
        self, settings: Settings, plan: Plan, basis: str, engine: Engine, store: Store, observer: Observer
    ) -> None:
        self.settings = settings
        self.basis = basis
        self.engine = engine
        self.store = store
        self.observer = observer
        self.plans = {batch.batch_size: batch for batch in plan.batches}
        self.rules = (SGD, *settings.momentum)
        self.grids = {b: list(settings.lr) for b in settings.batch_sizes}
        self.outcomes: dict[Run, Outcome] = {}
        self.computed = 0
        self.reused = 0

    def run(self) -> tuple[BatchResult, ...]:
        """Tune, fix the margins, confirm."""
        self._tune()
        choices = {b: self._choices(b) for b in self.settings.batch_sizes}
        margins = {b: self._margin(b) for b in self.settings.batch_sizes}
        self.store.save_json("margins.json", {str(b): m for b, m in margins.items()})
        results: dict[int, BatchResult] = {}
        for stage, num_pairs in enumerate(self.settings.stages):
            pairs = [p for b in choices for p in self._confirmation(b, stage, num_pairs, choices[b], results.get(b))]
            if not pairs:
                break
            self._compute(f"confirming, {num_pairs} pairs", pairs)
            for b in self.settings.batch_sizes:
                of_batch = {run: o for run, o in self.outcomes.items() if run.batch_size == b}
                results[b] = judge(self.settings, b, num_pairs, self.grids[b], choices[b], margins[b], of_batch)
        return tuple(results[b] for b in self.settings.batch_sizes)

    def _tune(self) -> None:
        growth: dict[tuple[int, str], int] = {}
        phase = "tuning"
        while True:
            self._compute(phase, self._tuning_pairs())
            phase = "tuning, wider grid"
            grown = False
            for b in self.settings.batch_sizes:
                for edge in sorted({e for choice_edges in self._edges(b).values() for e in choice_edges}):
                    if growth.get((b, edge), 0) < self.settings.max_extensions:
                        growth[b, edge] = growth.get((b, edge), 0) + 1
                        self.grids[b] = sorted([*self.grids[b], tuning.extend(self.grids[b], edge)])
                        grown = True
            if not grown:
                return

    def _tuning_pairs(self) -> list[list[Run]]:
        """Every rule at every rate on the tuning seeds, one list for each (rate, seed)."""
        return [
            [Run(b, rate, seed, momentum) for momentum in self.rules]
            for b in self.settings.batch_sizes
            for rate in self.grids[b]
            for seed in seeds("tune", self.settings.tuning_seeds)
        ]

    def _confirmation(
        self,
        b: int,
        stage: int,
        num_pairs: int,
        choices: dict[float, tuning.Choice],
        so_far: BatchResult | None,
    ) -> Iterator[list[Run]]:
        """The pairs that a stage needs: those not decided at their selected rates, and first all at equal rates."""
        open_rules = [m for m in self.settings.momentum if choices[m].effective_lr is not None]
        if so_far is not None:
            decided = {p.arm.momentum for p in so_far.pairings if all(d.final for d in p.decisions.values())}
            open_rules = [m for m in open_rules if m not in decided]
        for seed in seeds("confirm", num_pairs):
            selected = [(m, choices[m].effective_lr) for m in (SGD, *open_rules)]
            if open_rules and all(rate is not None for _, rate in selected):
                yield [Run(b, rate, seed, m) for m, rate in selected if rate is not None]
        if stage == 0:
            for rate in self.grids[b]:
                for seed in seeds("confirm", num_pairs):
                    yield [Run(b, rate, seed, momentum) for momentum in self.rules]

    def _compute(self, phase: str, pairs: Iterable[Sequence[Run]]) -> None:
        """Outcomes of all runs that are not known yet, from the store or the engine."""
        wanted: set[Run] = set()
        missing: dict[int, list[list[Run]]] = {}
        for pair in pairs:
            new = [run for run in pair if run not in self.outcomes and run not in wanted]
            wanted.update(new)
            if new:
                missing.setdefault(new[0].batch_size, []).append(new)
        packed = [pack(p, self.plans[b].width, self.plans[b].compiled) for b, p in missing.items()]
        # Batch sizes in turn, so that workers that start together compile different steps.
        chunks = [c for c in chain.from_iterable(zip_longest(*packed)) if c is not None]
        self.observer.begin(phase, sum(map(self._work, chunks)))
        to_compute = []
        for chunk in chunks:
            outcomes = self.store.load(chunk.key(self.basis))
            if outcomes is None:
                to_compute.append(chunk)
            else:
                self.reused += len(outcomes)
                self._take(chunk, outcomes)
        for chunk, outcomes in self.engine.compute(to_compute):
            self.store.save(chunk.key(self.basis), outcomes)
            self.computed += len(outcomes)
            self._take(chunk, outcomes)

    def _take(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        self.outcomes.update({outcome.run: outcome for outcome in outcomes})
        self.observer.advance(self._work(chunk))

    def _work(self, chunk: Chunk) -> float:
        return len(chunk.runs) * self.plans[chunk.batch_size].seconds_per_run

    def _tuned(self, b: int, momentum: float) -> list[Outcome]:
        tried = seeds("tune", self.settings.tuning_seeds)
        return [self.outcomes[Run(b, rate, seed, momentum)] for rate in self.grids[b] for seed in tried]

    def _selection(self, b: int) -> tuple[float, bool]:
        """Tolerance of the selection, a quarter of the margin, and whether higher is better."""
        if self.settings.select == "train_loss":
            margin = self._margin(b)
            return (margin["train_loss"] / 4 if margin else 0.0), False
        return self.settings.margin_accuracy / 4, True

    def _edges(self, b: int) -> dict[float, set[str]]:
        tolerance, higher = self._selection(b)
        scores = {m: tuning.rate_scores(self._tuned(b, m), self.settings.select) for m in self.rules}
        return {m: tuning.edges(s, tolerance, higher) for m, s in scores.items()}

    def _choices(self, b: int) -> dict[float, tuning.Choice]:
        tolerance, higher = self._selection(b)
        edges = self._edges(b)
        scores = {m: tuning.rate_scores(self._tuned(b, m), self.settings.select) for m in self.rules}
        return {
            m: tuning.Choice(tuning.select_rate(s, tolerance, higher), bool(edges[m]), s) for m, s in scores.items()
        }

    def _margin(self, b: int) -> dict[str, float] | None:
        """Margins of the measures at a batch size, from the tuning runs alone; None if no rate trains.

        The loss margin is a share of the decrease from the untrained loss to the best mean of any rule and rate.
        """
        tuned = [o for m in self.rules for o in self._tuned(b, m)]
        untrained = sum(o.untrained["train_loss"] for o in tuned) / len(tuned)
        scores = [s for m in self.rules for s in tuning.rate_scores(self._tuned(b, m), "train_loss")]
        decrease = untrained - min(s.mean for s in scores)
        if not decrease > 0:
            return None
        margins = {
            "train_loss": self.settings.margin_loss * decrease,
            "test_accuracy": self.settings.margin_accuracy,
        }
        return {name: margins[name] for name in JUDGED}
