"""What a comparison found, as frozen data; text and JSON are made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightball.stats import Decision, Interval, Verdict
from lightball.studies.settings import Settings
from lightball.studies.tuning import RateScore

Judged = Literal["train_loss", "test_accuracy"]
JUDGED: dict[Judged, str] = {"train_loss": "training loss", "test_accuracy": "test accuracy"}
"""The two measures that get a verdict, and how people call them."""


@dataclass(frozen=True)
class Arm:
    """One rule at one batch size: its selected rate and its mean result over the confirmation runs there.

    ``_se`` are standard errors over seeds. ``effective_lr`` is None if some seed failed at every rate that was tried;
    there are no confirmation runs then. ``crashed`` of the ``failed`` runs ended without a result, the last of them
    with ``last_error``. ``rate_without_crashes``: what would have been selected if no run had crashed while tuning,
    where that is another rate. ``curve`` is the mean training loss before training and after each epoch; its last value
    is ``train_loss``, where failed runs score what the untrained model does.
    """

    momentum: float
    effective_lr: float | None
    at_edge: bool
    train_loss: float | None
    train_loss_se: float | None
    test_accuracy: float | None
    test_accuracy_se: float | None
    runs: int
    failed: int
    curve: tuple[float, ...]
    tuning: tuple[RateScore, ...]
    crashed: int = 0
    last_error: str | None = None
    rate_without_crashes: float | None = None


@dataclass(frozen=True)
class Speed:
    """Epochs until the mean training loss first reaches ``level``, the final one of the rule that ends higher."""

    level: float
    sgd: float
    sgdm: float


@dataclass(frozen=True)
class Pairing:
    """SGDM with one momentum against SGD, each at its selected rate.

    ``decisions`` has an entry for each measure, positive differences favouring momentum; it is empty if one of the
    rules has no rate without failures. ``loss_ratio`` is the geometric mean over pairs of SGD's training loss over
    SGDM's.
    """

    arm: Arm
    decisions: dict[Judged, Decision]
    loss_ratio: float | None
    speed: Speed | None

    def verdict(self, measure: Judged) -> Verdict:
        decision = self.decisions.get(measure)
        return decision.verdict if decision else Verdict.UNDECIDED


@dataclass(frozen=True)
class EqualRates:
    """SGDM against SGD at the same effective rate: a description with 95 % intervals, no verdict."""

    effective_lr: float
    momentum: float
    failed_sgd: int
    failed_sgdm: int
    differences: dict[Judged, Interval]


@dataclass(frozen=True)
class BatchResult:
    """Everything at one batch size; ``margins`` were fixed from the tuning runs (None: no rate trains).

    ``margins_changed``: an earlier comparison in the same folder fixed other ones. ``lost_seeds``: seeds on which every
    run crashed, the last with ``last_error``; other seeds took their place.
    """

    batch_size: int
    margins: dict[Judged, float] | None
    sgd: Arm
    pairings: tuple[Pairing, ...]
    equal_rates: tuple[EqualRates, ...]
    margins_changed: bool = False
    lost_seeds: int = 0
    last_error: str | None = None


@dataclass(frozen=True)
class Span:
    """The line in sum for one measure."""

    no_value_up_to: int | None
    helps_from: int | None


@dataclass(frozen=True)
class Result:
    """What a comparison found."""

    task: str
    settings: Settings
    batches: tuple[BatchResult, ...]
    seconds: float
    computed_runs: int
    reused_runs: int
    folder: str
    crashed_runs: int = 0

    def summary(self, measure: Judged) -> Span:
        """Up to which batch size momentum had no value, and from which it helped."""
        return span([(b.batch_size, [p.verdict(measure) for p in b.pairings]) for b in self.batches])


def span(verdicts: Sequence[tuple[int, Sequence[Verdict]]]) -> Span:
    """No value up to the last of the leading batch sizes at which no momentum had any; helps from the first of the
    trailing ones at which some momentum did."""
    none, helps = None, None
    for batch_size, row in sorted(verdicts):
        if not all(v is Verdict.NO_VALUE for v in row):
            break
        none = batch_size
    for batch_size, row in sorted(verdicts, reverse=True):
        if not any(v is Verdict.HELPS for v in row):
            break
        helps = batch_size
    return Span(none, helps)
