"""The result store with 10,000 finished cells, each a file of one run: times, and the growth of memory.

    python benchmarks/store.py            # about half a minute
    python benchmarks/store.py --json     # the same facts for a machine

Every step runs in a process of its own, so that memory is counted for it alone; imports are not timed. ``load`` is
listing, reading, checking and parsing all files to outcomes, as after a kill: the writer has not left its store.
``resume`` finds the keys too. Other work on the machine shows in these times.
Exit code 1 if a target is missed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

# step → the most seconds and the most MiB that it may take; None: no target
TARGETS: dict[str, tuple[float | None, float | None]] = {
    "write": (None, 100),
    "list and load": (2.0, 200),
    "without the index": (5.0, 200),
    "resume: plan and load": (5.0, 300),
    "lightball.load": (2.0, 200),
    "lightball runs": (5.0, 300),
}
EPOCHS = 24


def measure(step: str, folder: Path, cells: int) -> dict[str, float]:
    """Seconds of a step in this process and the MiB by which its peak exceeds what the imports take."""
    from lightball.studies.runs import Chunk, Outcome, Run
    from lightball.studies.store import Store, load, survey

    chunks = [Chunk((Run(8, 0.1, seed, 0.9),)) for seed in range(cells)]
    basis = "benchmark"
    study, about = {"task": "benchmark"}, {"versions": {"lightball": "0"}, "command": ["benchmark"]}

    def outcome(run: Run) -> Outcome:
        curve = tuple(1.0 / (epoch + 1 + run.seed) for epoch in range(EPOCHS + 1))
        values: Any = {"train_loss": 2.3, "validation_accuracy": 0.1, "test_accuracy": 0.1}
        return Outcome(run, curve, values, {name: value / 2 for name, value in values.items()})

    keys = {} if step.startswith("resume") else {chunk.key(basis): chunk for chunk in chunks}
    if step == "without the index":
        for path in folder.glob("index.*"):
            path.unlink()
    peak = _peak()
    start = time.perf_counter()
    if step == "lightball.load":
        assert load(folder).num_rows == cells
    elif step == "lightball runs":
        assert sum(counts.finished for counts in survey(folder).counts) == cells
    else:
        store = Store(folder, study, about)
        store.__enter__()
        keys = keys or {chunk.key(basis): chunk for chunk in chunks}
        if step == "write":
            for key, chunk in keys.items():
                store.save(key, chunk, [outcome(run) for run in chunk.runs])
        else:
            if step.startswith("resume"):
                store.plan("tuning", keys)
            assert len(store.load(keys)) == cells
    return {"seconds": time.perf_counter() - start, "mib": _peak() - peak}


def _peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


@click.command()
@click.option("--cells", default=10_000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--step", hidden=True)
@click.option("--folder", hidden=True, type=click.Path(path_type=Path))
def main(cells: int, as_json: bool, step: str | None, folder: Path | None) -> None:
    """Print seconds and the growth of memory of each step, and what it may take."""
    if step is not None and folder is not None:
        click.echo(json.dumps(measure(step, folder, cells)))
        return
    rows = []
    place = Path(tempfile.mkdtemp(prefix="lightball-store-"))
    try:
        for name, (seconds, mib) in TARGETS.items():
            command = [
                sys.executable,
                __file__,
                "--step",
                name,
                "--folder",
                str(place / "study"),
                "--cells",
                str(cells),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = {"step": name, **json.loads(done.stdout), "most_seconds": seconds, "most_mib": mib}
            row["met"] = all(most is None or row[unit] <= most for unit, most in (("seconds", seconds), ("mib", mib)))
            rows.append(row)
        size = sum(path.stat().st_size for path in (place / "study" / "chunks").iterdir())
    finally:
        shutil.rmtree(place)
    if as_json:
        click.echo(json.dumps({"cells": cells, "bytes": size, "rows": rows}, indent=2))
    else:
        click.echo(f"{cells:,} cells of one run, {EPOCHS} epochs, {size / cells / 1024:.1f} KiB each\n")
        click.echo(f"{'step':<24} {'seconds':>8} {'at most':>8} {'MiB':>6} {'at most':>8}")
        for row in rows:
            most = [f"{row[key]:g}" if row[key] else "–" for key in ("most_seconds", "most_mib")]
            missed = "" if row["met"] else "  missed"
            click.echo(f"{row['step']:<24} {row['seconds']:>8.2f} {most[0]:>8} {row['mib']:>6.0f} {most[1]:>8}{missed}")
    if not all(row["met"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
