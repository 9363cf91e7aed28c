"""The comparison of SGD with SGDM: tune both, then confirm on fresh seeds until the verdict is clear."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from lightball.errors import InputError
from lightball.studies import tuning
from lightball.studies.judging import judge
from lightball.studies.ledger import Ledger
from lightball.studies.result import JUDGED, BatchResult, Judged
from lightball.studies.runs import Outcome, Run
from lightball.studies.settings import Settings

SGD = 0.0


class Notes(Protocol):
    """Where margins are kept; see :class:`lightball.studies.store.Store`."""

    def fix_json(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]: ...

    def save_json(self, name: str, value: Mapping[str, Any]) -> None: ...


class Comparison:
    """Carries out a plan. What is done next is a function of settings and outcomes, at each batch size by itself.

    Args:
        batch_sizes: some of those of the settings, default all.

    ``choices`` is filled by :meth:`run` when rates are selected, ``results`` by batch size after each stage, so that
    both say how far it came where it had to stop.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger, store: Notes, batch_sizes: tuple[int, ...] | None = None
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.store = store
        self.batch_sizes = settings.batch_sizes if batch_sizes is None else batch_sizes
        self.rules = (SGD, *settings.momentum)
        self.tuned_rules = self.rules if settings.tune == "both" else settings.momentum
        self.grids = {b: list(settings.lr) for b in self.batch_sizes}
        self.choices: dict[int, dict[float, tuning.Choice]] = {}
        self.results: dict[int, BatchResult] = {}

    def run(self) -> tuple[BatchResult, ...]:
        """Tune, fix the margins, confirm."""
        self._tune()
        self.choices = {b: self._choices(b) for b in self.batch_sizes}
        margins = {b: self._margin(b) for b in self.batch_sizes}
        changed = self._fix_margins(margins)
        for stage, num_pairs in enumerate(self.settings.stages):
            pairs = partial(self._stage_pairs, stage, num_pairs, dict(self.results))
            if stage and not any(True for _ in pairs()):
                break
            self.ledger.obtain(f"confirming, {num_pairs} pairs", "confirm", pairs, self._is_selected)
            for b in self.batch_sizes:
                seeds = self.ledger.seeds(b, "confirm", num_pairs)
                found = self.ledger.outcomes(b)
                judged = judge(self.settings, b, seeds, self.grids[b], self.choices[b], margins[b], found)
                lost, error = self.ledger.lost(b)
                self.results[b] = replace(judged, margins_changed=changed, lost_seeds=lost, last_error=error)
        return tuple(self.results[b] for b in self.batch_sizes)

    def _tune(self) -> None:
        growth: dict[tuple[int, str], int] = {}
        phase = "tuning"
        while True:
            self.ledger.obtain(phase, "tune", self._tuning_pairs)
            self._require_scores()
            phase = "tuning, wider grid"
            grown = False
            for b in self._batches_that_run():
                for edge in sorted({e for choice_edges in self._edges(b).values() for e in choice_edges}):
                    if growth.get((b, edge), 0) < self.settings.max_extensions:
                        growth[b, edge] = growth.get((b, edge), 0) + 1
                        self.grids[b] = sorted([*self.grids[b], tuning.extend(self.grids[b], edge)])
                        grown = True
            if not grown:
                return

    def _batches_that_run(self) -> list[int]:
        """Batch sizes at which some run did not crash; the others need no further rates."""
        found = {b: [o for m in self.tuned_rules for o in self._tuned(b, m)] for b in self.batch_sizes}
        return [b for b, outcomes in found.items() if not all(o.error for o in outcomes)]

    def _tuning_pairs(self) -> Iterator[list[Run]]:
        """Every rule that is tuned at every rate on the tuning seeds, one list for each (rate, seed)."""
        for b in self.batch_sizes:
            seeds = self.ledger.seeds(b, "tune", self.settings.tuning_seeds)
            for rate in self.grids[b]:
                for seed in seeds:
                    yield [Run(b, rate, seed, momentum) for momentum in self.tuned_rules]

    def _stage_pairs(
        self,
        stage: int,
        num_pairs: int,
        so_far: Mapping[int, BatchResult],
    ) -> Iterator[list[Run]]:
        for b in self.batch_sizes:
            yield from self._confirmation(b, stage, num_pairs, self.choices[b], so_far.get(b))

    def _confirmation(
        self,
        b: int,
        stage: int,
        num_pairs: int,
        choices: Mapping[float, tuning.Choice],
        so_far: BatchResult | None,
    ) -> Iterator[list[Run]]:
        """The pairs that a stage needs: those not decided at their selected rates, and first all at equal rates, if
        those are asked for."""
        open_rules = [m for m in self.settings.momentum if choices[m].effective_lr is not None]
        if so_far is not None:
            decided = {p.arm.momentum for p in so_far.pairings if all(d.final for d in p.decisions.values())}
            open_rules = [m for m in open_rules if m not in decided]
        seeds = self.ledger.seeds(b, "confirm", num_pairs)
        for seed in seeds:
            selected = [(m, choices[m].effective_lr) for m in (SGD, *open_rules)]
            if open_rules and all(rate is not None for _, rate in selected):
                yield [Run(b, rate, seed, m) for m, rate in selected if rate is not None]
        trains = any(choice.effective_lr is not None for choice in choices.values())
        if stage == 0 and trains and self.settings.confirm_rates == "grid":
            for rate in self.grids[b]:
                for seed in seeds:
                    yield [Run(b, rate, seed, momentum) for momentum in self.rules]

    def _is_selected(self, run: Run) -> bool:
        """Whether a run is at the selected rate of its rule; those at other rates are description."""
        return self.choices[run.batch_size][run.momentum].effective_lr == run.effective_lr

    def _tuned(self, b: int, momentum: float) -> list[Outcome]:
        tried = self.ledger.seeds(b, "tune", self.settings.tuning_seeds)
        found = self.ledger.outcomes(b)
        return [found[Run(b, rate, seed, momentum)] for rate in self.grids[b] for seed in tried]

    def _selection(self, b: int) -> tuple[float, bool]:
        """Tolerance of the selection, a quarter of the margin, and whether higher is better."""
        if self.settings.select == "train_loss":
            margin = self._margin(b)
            return (margin["train_loss"] / 4 if margin else 0.0), False
        return self.settings.margin_accuracy / 4, True

    def _edges(self, b: int) -> dict[float, set[str]]:
        tolerance, higher = self._selection(b)
        scores = {m: tuning.rate_scores(self._tuned(b, m), self.settings.select) for m in self.tuned_rules}
        return {m: tuning.edges(s, tolerance, higher) for m, s in scores.items()}

    def _choices(self, b: int) -> dict[float, tuning.Choice]:
        tolerance, higher = self._selection(b)
        edges = self._edges(b)

        def select(outcomes: Iterable[Outcome]) -> tuple[float | None, tuple[tuning.RateScore, ...]]:
            scores = tuning.rate_scores(outcomes, self.settings.select)
            return tuning.select_rate(scores, tolerance, higher), scores

        def choice(momentum: float) -> tuning.Choice:
            selected, scores = select(self._tuned(b, momentum))
            without_crashes, _ = select(o for o in self._tuned(b, momentum) if not o.error)
            return tuning.Choice(selected, bool(edges[momentum]), scores, without_crashes)

        choices = {momentum: choice(momentum) for momentum in self.tuned_rules}
        if SGD not in choices:
            (of_sgdm,) = choices.values()
            return {SGD: tuning.Choice(of_sgdm.effective_lr, at_edge=False, scores=()), **choices}
        return choices

    def _require_scores(self) -> None:
        """A script may not report what rates are to be selected by."""
        if self.settings.select == "train_loss":
            return
        for b in self.batch_sizes:
            tuned = [o for m in self.tuned_rules for o in self._tuned(b, m) if not o.failed]
            if any(not math.isfinite(o.final[self.settings.select]) for o in tuned):
                raise InputError(
                    "rates are to be selected by validation accuracy, but runs report none: have the script print "
                    "validation_accuracy, or use --select train_loss"
                )

    def _margin(self, b: int) -> dict[Judged, float] | None:
        """Margins of the measures at a batch size, from the tuning runs alone; None if no rate trains.

        The loss margin is a share of the decrease from the untrained loss to the best mean of any rule and rate, or
        of that best mean itself where the untrained loss is not known.
        """
        tuned = [o for m in self.tuned_rules for o in self._tuned(b, m)]
        means = [s.mean for m in self.tuned_rules for s in tuning.rate_scores(self._tuned(b, m), "train_loss")]
        best = min(filter(math.isfinite, means), default=math.nan)
        known = [o.untrained["train_loss"] for o in tuned if math.isfinite(o.untrained["train_loss"])]
        decrease = float(np.mean(known)) - best if len(known) == len(tuned) else best
        if not decrease > 0:
            return None
        margins = {
            "train_loss": self.settings.margin_loss * decrease,
            "test_accuracy": self.settings.margin_accuracy,
        }
        return {name: margins[name] for name in JUDGED}

    def _fix_margins(self, margins: Mapping[int, Mapping[Judged, float] | None]) -> bool:
        """Store the margins; whether others were asked for first in this folder."""
        chosen = {"margin_loss": self.settings.margin_loss, "margin_accuracy": self.settings.margin_accuracy}
        first = self.store.fix_json("margins.json", {"chosen": chosen})["chosen"]
        self.store.save_json("margins.json", {"chosen": first, **{str(b): m for b, m in margins.items()}})
        return bool(first != chosen)
