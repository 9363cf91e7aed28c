"""The curves of single runs that a comparison with ``keep_runs`` has left in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightball.errors import InputError, reason_of
from lightball.studies.engines.kept_runs import CURVE, runs_folder
from lightball.studies.runs import Phase, Run, hash_of
from lightball.studies.store import study_file
from lightball.studies.store.reading import read
from lightball.training import Point


@dataclass(frozen=True)
class RunCurve:
    """The points of a finished run, the first before any step; one that failed has none after that."""

    run: Run
    phase: Phase
    points: tuple[Point, ...]


def curves(folder: str | Path) -> list[RunCurve]:
    """The curves of the finished runs in the folder of a study, sorted by phase and run.

    Runs that were not kept, or that crashed, have none. Accuracies are None where they were not measured.

    Raises:
        InputError: there is no such folder, it holds no study, a newer version wrote it, or a curve cannot be read.
    """
    folder = Path(folder)
    study, _ = study_file.find(folder)
    found = read(folder, hash_of(study["study"]))
    rows = found.rows.select(["phase", "batch_size", "effective_lr", "seed", "momentum", "error"]).to_pylist()
    kept = [
        RunCurve(_run(row), row["phase"], points)
        for key, row in zip(found.keys, rows, strict=True)
        if row["error"] is None and (points := _points(runs_folder(folder) / key / CURVE))
    ]
    return sorted(kept, key=lambda curve: (curve.phase, curve.run))


def _run(row: Mapping[str, Any]) -> Run:
    return Run(row["batch_size"], row["effective_lr"], row["seed"], row["momentum"])


def _points(path: Path) -> tuple[Point, ...]:
    """The points in a file of JSON lines; none where there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
        return tuple(_point(json.loads(line)) for line in text.splitlines())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"the curve {str(path)!r} cannot be read ({reason_of(error)}): delete it to go on without it"
        ) from error


def _point(values: Mapping[str, Any]) -> Point:
    loss = values.get("train_loss")
    return Point(**{**values, "train_loss": math.nan if loss is None else loss})
