"""The vectorised engine against plain loops: training steps per second, both on the same cells in the same run.

    python benchmarks/vectorised.py            # about 8 minutes on 2 cores
    python benchmarks/vectorised.py --json     # the same facts for a machine

The plain side is what most people write: ``torch.optim.SGD`` on one model, one process a core, one thread each. Both
sides train the same runs (seeds, data order, learning rates, momenta) in worker processes that are warm: imports,
tracing and compilation are not counted (``lightball compare`` counts them; see the time that it prints). Sides take
turns, and the table shows the median of the ratios of the rounds with the smallest and the largest.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from concurrent.futures import Future
from typing import Any

import click

import cells

# (task, batch size) → the ratio that is required, and steps of each run: enough that what happens once a run (initial
# weights, stacking) weighs as little as in the 24 epochs of the demo.
CELLS = {
    ("digits", 8): (15.0, 536),
    ("digits", 64): (5.0, 200),
    ("digits", 512): (1.6, 48),
    ("digits-conv", 8): (3.0, 134),
    ("digits-conv", 64): (1.0, 80),
    ("digits-conv", 256): (1.0, 32),
}


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, as_json: bool) -> None:
    """Print steps per second of both sides, their ratio, and the share of the peak of sgemm."""
    from loky import ProcessPoolExecutor

    cores = len(os.sched_getaffinity(0))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1")
    rows = []
    with ProcessPoolExecutor(cores, env=threads, timeout=None) as pool:

        def together(function: Any, *arguments: Any) -> float:
            """Wall-clock of one call in each worker at the same time."""
            start = time.perf_counter()
            calls: list[Future[float]] = [pool.submit(function, worker, cores, *arguments) for worker in range(cores)]
            for call in calls:
                call.result()
            return time.perf_counter() - start

        together(cells.sgemm, 50)
        for (task, batch_size), (target, num_steps) in CELLS.items():
            cell = (task, batch_size)
            together(cells.plain, *cell, 2)
            for _ in range(2):  # whichever worker takes it, both have compiled afterwards
                together(cells.vectorised, *cell, 2)
            ratios, plains, fasts, peaks = [], [], [], []
            for _ in range(rounds):
                plains.append(together(cells.plain, *cell, num_steps))
                fasts.append(together(cells.vectorised, *cell, num_steps))
                peaks.append(2 * 1024**3 * 100 * cores / together(cells.sgemm, 100))
                ratios.append(plains[-1] / fasts[-1])
            steps = cells.REPLICAS * num_steps
            fast = steps / statistics.median(fasts)
            rows.append(
                {
                    "task": task,
                    "batch_size": batch_size,
                    "plain_steps_per_s": steps / statistics.median(plains),
                    "vectorised_steps_per_s": fast,
                    "ratio": statistics.median(ratios),
                    "ratio_range": [min(ratios), max(ratios)],
                    "target": target,
                    "share_of_sgemm_peak": fast * cells.flops(task, batch_size) / statistics.median(peaks),
                    "width": cells.trainer(task, batch_size).footprint.width,
                }
            )
            if not as_json:
                if len(rows) == 1:
                    click.echo(f"{cells.REPLICAS} runs, {cores} workers of one thread, median of {rounds} rounds")
                    click.echo(
                        "task         batch  width  plain steps/s  vectorised    ratio (range)      target  sgemm"
                    )
                row = rows[-1]
                low, high = row["ratio_range"]
                click.echo(
                    f"{task:<12} {batch_size:>5} {row['width']:>6} {row['plain_steps_per_s']:>14,.0f} {fast:>11,.0f} "
                    f"{row['ratio']:>7.1f} × ({low:.1f}–{high:.1f}) {target:>9.1f} × "
                    f"{100 * row['share_of_sgemm_peak']:>5.0f} %"
                )
    if as_json:
        import torch

        click.echo(json.dumps({"cores": cores, "torch": torch.__version__, "rounds": rounds, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
