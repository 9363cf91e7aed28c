"""Forecasts of the value of momentum against real runs: how often they are right where they call themselves valid.

    python benchmarks/forecast.py                      # runs and probes from results/, forecasts anew
    python benchmarks/forecast.py --probes DIR         # probes into DIR what is not yet there: some 20 minutes
    python benchmarks/forecast.py --runs FILE          # measures into FILE what is not yet there: some hours
    python benchmarks/forecast.py --runs FILE --time-budget 600 --device cuda     # as far as it comes; go on later
    python benchmarks/forecast.py --figure docs/forecast.svg --json results/forecast.json

Digits, a perceptron and a convolutional net, after 1, 6 and 24 epochs of training; SGD and SGDM (β = 0.9) go on from
there on the same batches, at six rates, three batch sizes, 50 and 200 steps, with and without replacement. Pairs are
added until the standard error of the difference is a quarter of it, up to a limit; cells that do not get there are not
scored, and counted. A probe of the phase with its path ahead forecasts all of its cells.

Where a forecast calls itself valid it must be within a quarter of what is measured or two standard errors, in 90 % of
scored cells, and never off by a factor of 3 and two standard errors; against always forecasting none its skill,
1 − (MSE − mean SE²)/(mean difference² − mean SE²), must be 0.8; and at least 60 % of cells with η λ_max < 1 must be
valid. The exit code is 1 if one of these fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import forecast_runs as real
from lightball.forecast import forecast
from lightball.probe import Probe, load_probe, look_ahead, probe, supervised

RESULTS = Path(__file__).parents[1] / "results"
RUNS, PROBES = RESULTS / "forecast-runs.json", RESULTS / "forecast-probes"
HORIZON = 50.0  # of the path ahead; cells beyond it are not valid
MICROBATCH = 32
PRECISION, TOLERANCE, SHARE, SKILL, COVERED, FACTOR = 0.25, 0.25, 0.9, 0.8, 0.6, 3.0


@dataclass(frozen=True)
class Cell:
    """One forecast beside what was measured; differences are SGD's loss minus SGDM's."""

    task: str
    phase: str
    sampling: str
    batch_size: int
    effective_lr: float
    num_steps: int
    stable: bool
    forecast: float
    from_lag: float
    from_noise: float
    valid: bool
    reason: str
    measured: float
    standard_error: float
    pairs: int

    @property
    def scored(self) -> bool:
        """Whether it was measured well enough to judge a forecast."""
        return bool(self.standard_error < PRECISION * abs(self.measured))

    @property
    def error(self) -> float:
        """Forecast minus measured."""
        return self.forecast - self.measured

    @property
    def good(self) -> bool:
        """Within a quarter, or two standard errors."""
        return abs(self.error) <= max(TOLERANCE * abs(self.measured), 2 * self.standard_error)

    @property
    def far(self) -> bool:
        """Off by a factor of three, and by more than two standard errors from that."""
        low, high = sorted((self.measured / FACTOR, self.measured * FACTOR))
        return not low - 2 * self.standard_error <= self.forecast <= high + 2 * self.standard_error


@dataclass(frozen=True)
class Score:
    """How a set of cells did."""

    cells: int
    stable: int
    valid_of_stable: int
    valid: int
    scored: int
    good: int
    far: int
    skill: float

    @property
    def passes(self) -> bool:
        """Whether all targets are met."""
        return (
            self.good >= SHARE * self.scored
            and self.skill >= SKILL
            and self.valid_of_stable >= COVERED * self.stable
            and not self.far
        )


def score(cells: Sequence[Cell]) -> Score:
    """Of the cells that call themselves valid and were measured well enough."""
    scored = [cell for cell in cells if cell.valid and cell.scored]
    stable = [cell for cell in cells if cell.stable]
    noise = sum(cell.standard_error**2 for cell in scored)
    errors = sum(cell.error**2 for cell in scored) - noise
    effects = sum(cell.measured**2 for cell in scored) - noise
    return Score(
        len(cells),
        len(stable),
        sum(cell.valid for cell in stable),
        sum(cell.valid for cell in cells),
        len(scored),
        sum(cell.good for cell in scored),
        sum(cell.far for cell in cells if cell.valid),
        1 - errors / effects if effects > 0 else float("nan"),
    )


def probe_of(task: str, phase: str, folder: Path) -> Probe:
    """The probe of a phase, from all examples, with its path ahead; kept in the folder."""
    path = folder / f"{task}-{phase}.json"
    if path.exists():
        return load_probe(path)
    folder.mkdir(parents=True, exist_ok=True)
    found = _probe(task, phase)
    found.save(path)
    return found


def _probe(task: str, phase: str) -> Probe:
    workload, model = real.phase(task, phase)
    data = list(zip(workload.train.inputs.split(MICROBATCH), workload.train.targets.split(MICROBATCH), strict=True))
    loss = supervised(workload.loss)
    now = probe(model, loss, data, curvature_batches=len(data))
    whole = [(workload.train.inputs, workload.train.targets)]
    return look_ahead(now, model, loss, whole, HORIZON, noise_data=data)


def cells_of(group: real.Group, found: Iterable[real.MeasuredValue], seen: Probe) -> list[Cell]:
    """The forecasts of a group beside its measurements; a cell in which runs diverged is not scored."""
    cells = []
    for one in found:
        said = forecast(
            seen,
            one.effective_lr,
            float(real.TRAINED_AT["momentum"]),
            batch_size=group.batch_size,
            num_steps=one.num_steps,
            sampling=group.sampling,
        )
        cells.append(
            Cell(
                group.task,
                group.phase,
                group.sampling,
                group.batch_size,
                one.effective_lr,
                one.num_steps,
                one.effective_lr * seen.sharpness.value < 1,
                said.value.value,
                said.from_lag,
                said.from_noise,
                said.validity.valid,
                said.validity.reason,
                one.mean,
                one.standard_error,
                one.pairs,
            )
        )
    return cells


@click.command(help=__doc__.split("\n")[0])
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="Measurements, read and added to.")
@click.option("--probes", type=click.Path(path_type=Path), default=PROBES, help="Probes, read and added to.")
@click.option("--tasks", default=",".join(real.TASKS))
@click.option("--time-budget", type=float, default=float("inf"), help="Seconds after which nothing more is measured.")
@click.option("--device", default="cpu")
@click.option("--cells", "show", is_flag=True, help="Print every cell.")
@click.option("--json", "out", type=click.Path(path_type=Path))
@click.option("--figure", type=click.Path(path_type=Path))
def main(
    runs: Path,
    probes: Path,
    tasks: str,
    time_budget: float,
    device: str,
    show: bool,
    out: Path | None,
    figure: Path | None,
) -> None:
    torch.set_num_threads(1)
    names = tuple(tasks.split(","))
    found = real.measure(runs, names, time_budget, device)
    seen: dict[tuple[str, str], Probe] = {}
    cells: list[Cell] = []
    for group in real.groups(names):
        if group.key in found:
            place = (group.task, group.phase)
            if place not in seen:
                seen[place] = probe_of(*place, probes)
            cells += cells_of(group, found[group.key], seen[place])
    if show:
        for cell in cells:
            click.echo(line_of(cell))
    click.echo(table(cells))
    total = score(cells)
    if out:
        out.write_text(json.dumps(as_json(cells, total), indent=1, allow_nan=False) + "\n")
    if figure:
        from forecast_figure import draw

        draw(cells, figure)
    sys.exit(0 if total.passes else 1)


def line_of(cell: Cell) -> str:
    mark = ("good" if cell.good else "FAR" if cell.far else "BAD") if cell.scored else "-"
    return (
        f"{cell.task:12} {cell.phase:6} {cell.sampling:7} {cell.batch_size:4} {cell.effective_lr:5} {cell.num_steps:4} "
        f"{cell.measured:+.5f} ± {cell.standard_error:.5f} ({cell.pairs:3})  {cell.forecast:+.5f} = "
        f"{cell.from_lag:+.5f} {cell.from_noise:+.5f}  {mark:4} {'valid' if cell.valid else cell.reason}"
    )


def table(cells: Sequence[Cell]) -> str:
    """Scores by task, phase and sampling, and of all."""
    head = f"{'':30}  cells  η λ < 1  of those valid  scored      good  far  skill"
    parts = dict.fromkeys((cell.task, cell.phase, cell.sampling) for cell in cells)
    rows = [
        (" ".join(part), score([cell for cell in cells if (cell.task, cell.phase, cell.sampling) == part]))
        for part in parts
    ]
    tasks = dict.fromkeys(cell.task for cell in cells)
    rows += [(task, score([cell for cell in cells if cell.task == task])) for task in tasks]
    rows.append(("all", score(cells)))
    lines = [head]
    for name, one in rows:
        valid = f"{one.valid_of_stable} ({one.valid_of_stable / max(1, one.stable):.0%})"
        good = f"{one.good} ({one.good / max(1, one.scored):.0%})"
        columns = (
            f"{one.cells:5}  {one.stable:7}  {valid:>14}  {one.scored:6}  {good:>8}  {one.far:3}  {one.skill:5.2f}"
        )
        lines.append(f"{name:30}  {columns}")
    unscored = sum(cell.valid and not cell.scored for cell in cells)
    lines.append(f"{unscored} valid cells were measured too roughly to be scored")
    return "\n".join(lines)


def as_json(cells: Sequence[Cell], total: Score) -> dict[str, Any]:
    """Everything, with None for what is not finite."""
    plain = [
        {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in asdict(cell).items()}
        for cell in cells
    ]
    return {
        "command": "python benchmarks/forecast.py",
        "torch": torch.__version__,
        "score": asdict(total),
        "passes": total.passes,
        "cells": plain,
    }


if __name__ == "__main__":
    main()
