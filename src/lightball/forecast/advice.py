"""Advice on momentum for one setting of a run: what it is limited by, what momentum is worth, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightball.forecast.best_tuned import BestTuned
from lightball.forecast.critical import CriticalBatchSize
from lightball.forecast.phase import Phase
from lightball.forecast.regime import Regime, Terms
from lightball.forecast.sentences import unstable_beyond
from lightball.oracles import SamplingKind
from lightball.rules import Setting
from lightball.stats import Verdict


@dataclass(frozen=True)
class ValueOfMomentum:
    """SGD's expected loss minus SGDM's after ``num_steps`` at the same effective rate; positive favours momentum.

    ``low`` and ``high`` hold 95 %. ``reason`` is a sentence where the forecast is not ``valid``. Where it is, a
    ``reason`` is a remark: the number is not known, because two effects nearly cancel or only their size can be told,
    but neither of them matters; ``low`` and ``high`` are bounds then. Numbers of a forecast that diverges are nan.
    """

    verdict: Verdict
    difference: float
    low: float
    high: float
    margin: float
    num_steps: int
    valid: bool
    reason: str


@dataclass(frozen=True)
class PhaseAdvice:
    """What is different from phase to phase."""

    phase: Phase
    regime: Regime
    terms: Terms
    value: ValueOfMomentum


@dataclass(frozen=True)
class Advice:
    """What a probe says about a setting.

    Args:
        setting: the user's optimizer, in the user's convention.
        batch_size: B.
        sampling: of minibatches.
        by_phase: regime, terms and value at each phase.
        main: index into ``by_phase`` of the phase that the headline is about.
        best_tuned: both rules at their best rates over a whole run.
        critical_batch_size: from which momentum pays, both rules at their best rates.
        matched_lr: the rate of SGD without momentum that replaces the setting; whether SGD stands it is another
            matter, see ``without_momentum``.
        matched_schedule: what to do with the schedule of the rate then.
        memory_saved_bytes: by dropping the momentum buffer.
        recommendation: one sentence.
        what_would_change: sentences on what would give another answer.
        more_batches: so many more batches of the probe's size are needed for an answer; None: enough.
        warm: whether the forecast at the main phase goes on with the optimizer's momentum.
    """

    setting: Setting
    batch_size: int
    sampling: SamplingKind
    by_phase: tuple[PhaseAdvice, ...]
    main: int
    best_tuned: BestTuned
    critical_batch_size: CriticalBatchSize
    matched_lr: float
    matched_schedule: str
    memory_saved_bytes: int
    recommendation: str
    what_would_change: tuple[str, ...]
    more_batches: int | None
    warm: bool = False

    @property
    def regime(self) -> Regime:
        return self.by_phase[self.main].regime

    @property
    def terms(self) -> Terms:
        return self.by_phase[self.main].terms

    @property
    def value_of_momentum(self) -> ValueOfMomentum:
        return self.by_phase[self.main].value

    @property
    def without_momentum(self) -> str:
        """The setting's match without momentum in words, and whether SGD stands it."""
        limit = unstable_beyond(self.regime, self.best_tuned, self.matched_lr)
        beyond = "" if limit is None else f", which SGD does not stand here: at most 2/λ_max = {limit:.2g}"
        return f"SGD at lr {self.matched_lr:.4g}{beyond}"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(at.phase for at in self.by_phase)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and text; what is not finite becomes null."""
        from lightball.forecast.advice_json import as_json

        return as_json(self)
