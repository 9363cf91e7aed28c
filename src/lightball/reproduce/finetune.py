"""Few-shot fine-tuning of a language model: SGD beside SGDM on five text classification tasks.

Source: the experiment of arXiv:2307.15196 with the code of MeZO (``princeton-nlp/MeZO``, ``medium_models``): k examples
a class to train and as many to select on, the best of the checkpoints by selection data tested, linear decay, gradient
norms clipped at 1, no weight decay on biases and LayerNorm. The unit of pairing is the sample, which is another for
each seed. The paper's rates are not known; the grids here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from lightball.reproduce.finetune_settings import FinetuneSettings
from lightball.reproduce.parts import Part, PartPlan, Progressed, plan_parts, read_parts, run_parts
from lightball.stats import Decision
from lightball.studies.ledger import Observer
from lightball.studies.result import Arm
from lightball.studies.result_json import as_json
from lightball.studies.runs import seeds as seeds_of
from lightball.studies.settings import Settings
from lightball.studies.study import BatchState, Study
from lightball.workloads.text import OFFICIAL_SEEDS, few_shot


@dataclass(frozen=True)
class Score:
    """One rule on one task: its selected effective rate (None: it failed at every one), mean and standard deviation of
    the test accuracy over seeds, and how many of the runs failed; a failed run scores what the untrained model does."""

    lr: float | None
    at_edge: bool
    mean: float | None
    sd: float | None
    runs: int
    failed: int


@dataclass(frozen=True)
class Row:
    """One task. ``zero_shot`` is the accuracy of the untrained model, for prompts; ``decision`` on test accuracy.

    ``tuned`` and ``confirmed`` count finished runs; the scores are None until a verdict can be tried.
    """

    task: str
    sgd: Score | None
    sgdm: Score | None
    zero_shot: float | None
    decision: Decision | None
    tuned: int
    confirmed: int
    finished: bool


@dataclass(frozen=True)
class FinetuneResult:
    """What is found so far, a row for each task that has a finished run. ``studies`` hold all of it."""

    settings: FinetuneSettings
    rows: tuple[Row, ...]
    finished: bool
    seconds: float
    studies: Mapping[str, Study]

    def as_json(self) -> dict[str, Any]:
        """Settings, rows, and the study of each task, as plain numbers; null for what is not known."""
        given = self.settings
        settings = {field.name: getattr(given, field.name) for field in fields(given) if field.name != "data"}
        return {
            "experiment": "finetune",
            "settings": {**settings, "model": given.model_name},
            "finished": self.finished,
            "seconds": self.seconds,
            "rows": [_row_json(row) for row in self.rows],
            "studies": {name: as_json(study.result) for name, study in self.studies.items()},
        }


def finetune_parts(settings: FinetuneSettings) -> list[Part]:
    """A comparison for each task."""
    study = Settings(
        batch_sizes=(settings.batch_size,),
        lr=settings.lr,
        momentum=(settings.momentum,),
        stages=(settings.seeds,),
        tuning_seeds=settings.tuning_seeds,
        margin_accuracy=settings.margin_accuracy,
        select="validation_accuracy",
        weight_decay=settings.weight_decay,
        decay="matrices",
        schedule=settings.schedule,
        max_extensions=settings.max_extensions,
        engine="process",
        num_steps=settings.num_steps,
        eval_every=settings.eval_every,
        checkpoint="best",
        confirm_rates="selected",
        precision=settings.precision,
        clip_norm=settings.clip_norm,
        in_backward=settings.in_backward,
    )
    samples = dict(zip(seeds_of("confirm", len(OFFICIAL_SEEDS)), OFFICIAL_SEEDS, strict=True))

    def part(task: str) -> Part:
        workload = partial(
            few_shot,
            task,
            settings.model,
            head=settings.head,
            k=settings.k,
            data=settings.data,
            official=samples,
            dropout=settings.dropout,
            length=settings.length,
            num_test=settings.num_test,
        )
        return Part(task, workload, study)

    return [part(task) for task in settings.tasks]


def plan_finetune(
    settings: FinetuneSettings, *, out: str | Path, device: str = "auto", workers: int | None = None
) -> list[PartPlan]:
    """What the experiment will cost; see :func:`lightball.reproduce.parts.plan_parts`."""
    parts = finetune_parts(settings)
    return plan_parts(parts, out=out, device=device, workers=workers, keep_runs=settings.keep_runs)


def run_finetune(
    settings: FinetuneSettings,
    *,
    out: str | Path,
    device: str = "auto",
    workers: int | None = None,
    deadline: float | None = None,
    observer: Observer | None = None,
) -> FinetuneResult:
    """Run the experiment, as far as time allows; see :func:`lightball.reproduce.parts.run_parts`.

    Raises:
        InputError: one line on what cannot be used.
    """
    progressed = run_parts(
        finetune_parts(settings),
        out=out,
        device=device,
        workers=workers,
        deadline=deadline,
        observer=observer,
        keep_runs=settings.keep_runs,
    )
    return _result(settings, progressed)


def read_finetune(settings: FinetuneSettings, out: str | Path) -> FinetuneResult:
    """What is finished of the experiment in a folder; no run is changed."""
    return _result(settings, read_parts(finetune_parts(settings), out=out))


def _result(settings: FinetuneSettings, progressed: Progressed) -> FinetuneResult:
    studies = progressed.studies
    rows = tuple(_row(name, study, settings) for name, study in studies.items())
    seconds = sum(study.seconds or 0.0 for study in studies.values())
    return FinetuneResult(settings, rows, progressed.finished, seconds, studies)


def _row(task: str, study: Study, settings: FinetuneSettings) -> Row:
    (batch,) = study.batches
    zero_shot = _untrained_accuracy(batch) if settings.head == "prompt" else None
    counts = (len(batch.tuned), len(batch.confirmed), batch.finished)
    if batch.result is None:
        return Row(task, None, None, zero_shot, None, *counts)
    (pairing,) = batch.result.pairings
    decision = pairing.decisions.get("test_accuracy")
    return Row(task, _score(batch.result.sgd), _score(pairing.arm), zero_shot, decision, *counts)


def _score(arm: Arm) -> Score:
    error = arm.test_accuracy_se
    deviation = None if error is None else error * math.sqrt(arm.runs)
    return Score(arm.effective_lr, arm.at_edge, arm.test_accuracy, deviation, arm.runs, arm.failed)


def _untrained_accuracy(batch: BatchState) -> float | None:
    """The same for all runs, since they start from the same weights; None if every run crashed."""
    outcomes = [*batch.confirmed.values(), *batch.tuned.values()]
    known = (o.untrained["test_accuracy"] for o in outcomes if o.error is None)
    return next(filter(math.isfinite, known), None)


def _row_json(row: Row) -> dict[str, Any]:
    return {**asdict(row), "decision": None if row.decision is None else _decision_json(row.decision)}


def _decision_json(decision: Decision) -> dict[str, Any]:
    interval = decision.interval
    return {
        "verdict": str(decision.verdict),
        "difference": interval.mean,
        "interval": [interval.low, interval.high],
        "confidence": interval.confidence,
        "pairs": interval.n,
        "margin": decision.margin,
        "pairs_needed": decision.pairs_needed,
    }


def verdicts(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The tasks by their verdict."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.decision is not None:
            found.setdefault(str(row.decision.verdict), []).append(row.task)
    return found
