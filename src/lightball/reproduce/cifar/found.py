"""What the experiment on CIFAR-10 found: at each ℓ the gap between SGD and SGDM, whether it falls, and the curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightball.reproduce.cifar.settings import ELLS, GRID, CifarSettings, ell_parts, grid_part, name_of
from lightball.reproduce.pairs import CONFIDENCE, RULES, Pairs, choice_of, pairs_of
from lightball.reproduce.parts import Progressed, read_parts
from lightball.stats import Interval, paired_t_interval
from lightball.studies.curves import curves
from lightball.studies.result import JUDGED, Judged
from lightball.studies.result_json import as_json
from lightball.studies.study import Study
from lightball.studies.tuning import Choice

Change = Literal["falls", "grows", "undecided", "no gap"]


@dataclass(frozen=True)
class Fall:
    """How the size of the gap changes from ℓ = 1 to the largest: by ``drop``, a 95 % interval over common seeds.

    "no gap": there is none at ℓ = 1 that its interval tells from 0, and so nothing that could fall.
    """

    change: Change
    first: int
    last: int
    drop: Interval


@dataclass(frozen=True)
class MeanCurve:
    """Means over the seeds of one rule at one ℓ, at ``steps``, which are effective ones: ℓ small steps are one."""

    ell: int
    rule: str
    runs: int
    steps: tuple[float, ...]
    train_loss: tuple[float | None, ...]
    test_accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class CifarResult:
    """What is found so far. ``choice`` is SGDM's, None while it is tuned; ``studies`` hold all of it."""

    settings: CifarSettings
    choice: Choice | None
    ells: tuple[Pairs, ...]
    falls: Mapping[Judged, Fall]
    curves: tuple[MeanCurve, ...]
    finished: bool
    seconds: float
    studies: Mapping[str, Study]

    @property
    def num_runs(self) -> int:
        """Finished ones."""
        return sum(study.num_runs for study in self.studies.values())

    def as_json(self) -> dict[str, Any]:
        """Settings, gaps, curves, and the study of each part, as plain numbers; null for what is not known."""
        given = {**asdict(self.settings), "data": self.settings.data and str(self.settings.data)}
        return {
            "experiment": "cifar",
            "settings": given,
            "finished": self.finished,
            "seconds": self.seconds,
            "runs": self.num_runs,
            "effective_lr": self.choice.effective_lr if self.choice else None,
            "ells": [{"ell": one.at, **one.as_json()} for one in self.ells],
            "falls": {measure: asdict(fall) for measure, fall in self.falls.items()},
            "curves": [asdict(curve) for curve in self.curves],
            "studies": {name: as_json(study.result) for name, study in self.studies.items()},
        }


def read_cifar(settings: CifarSettings, out: str | Path, device: str = "cpu") -> CifarResult:
    """What is finished of the experiment in a folder; no run is changed."""
    grid = read_parts([grid_part(settings, device)], out=out)
    rate = selected_rate(grid)
    if rate is None:
        return found(settings, grid)
    others = read_parts(ell_parts(settings, device, rate), out=out)
    return found(settings, Progressed({**grid.studies, **others.studies}, grid.finished and others.finished))


def selected_rate(grid: Progressed) -> float | None:
    """The effective rate that was selected for SGDM, and that SGD takes too; None while it is not known."""
    choice = _choice(grid.studies)
    return choice.effective_lr if choice else None


def found(settings: CifarSettings, progressed: Progressed) -> CifarResult:
    """The result of what has run."""
    studies, choice = progressed.studies, _choice(progressed.studies)
    rate = choice.effective_lr if choice else None
    parts = {ell: studies[name_of(ell)] for ell in settings.ells or ELLS if name_of(ell) in studies}
    ells: list[Pairs] = []
    means: list[MeanCurve] = []
    if rate is not None:
        ells = [
            one for ell, study in parts.items() if (one := pairs_of(ell, study.batches[0], rate, settings.momentum))
        ]
        means = [
            curve
            for ell, study in parts.items()
            for rule, momentum in zip(RULES, (0.0, settings.momentum), strict=True)
            if (curve := _mean_curve(ell, rule, study.folder, rate, momentum))
        ]
    seconds = sum(study.seconds or 0.0 for study in studies.values())
    return CifarResult(settings, choice, tuple(ells), falls(ells), tuple(means), progressed.finished, seconds, studies)


def _choice(studies: Mapping[str, Study]) -> Choice | None:
    return choice_of(studies[GRID].batches[0]) if GRID in studies else None


def falls(ells: Sequence[Pairs]) -> dict[Judged, Fall]:
    """From ℓ = 1 to the largest, where there are both, by measure."""
    if len(ells) < 2 or ells[0].at != 1:
        return {}
    return {measure: fall for measure in JUDGED if (fall := _fall(measure, ells[0], ells[-1]))}


def _fall(measure: Judged, first: Pairs, last: Pairs) -> Fall | None:
    seeds = [seed for seed in first.by_seed[measure] if seed in last.by_seed[measure]]
    if len(seeds) < 2:
        return None
    start, end = first.gaps[measure], last.gaps[measure]
    sign = math.copysign(1.0, start.mean)
    drops = [sign * (first.by_seed[measure][seed] - last.by_seed[measure][seed]) for seed in seeds]
    drop = paired_t_interval(drops, CONFIDENCE)
    if start.low <= 0 <= start.high:
        change: Change = "no gap"
    elif drop.high < 0:
        change = "grows"
    else:
        change = "falls" if drop.low > 0 and abs(end.mean) < abs(start.mean) else "undecided"
    return Fall(change, first.at, last.at, drop)


def _mean_curve(ell: int, rule: str, folder: Path, rate: float, momentum: float) -> MeanCurve | None:
    """Over the runs that came to the end; those that failed stopped before."""
    of = [
        curve.points
        for curve in curves(folder)
        if curve.phase == "confirm" and (curve.run.effective_lr, curve.run.momentum) == (rate, momentum)
    ]
    steps = max((tuple(point.step for point in points) for points in of), key=len, default=())
    whole = [points for points in of if tuple(point.step for point in points) == steps]
    if not whole:
        return None
    columns = [*zip(*whole, strict=True)]
    return MeanCurve(
        ell,
        rule,
        len(whole),
        tuple(step / ell for step in steps),
        tuple(_mean([point.train_loss for point in column]) for column in columns),
        tuple(_mean([point.test_accuracy for point in column]) for column in columns),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if len(known) == len(values) else None
