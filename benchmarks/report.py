"""The page of a study of 10,000 runs: seconds until it is written, its size, and seconds until a browser has drawn it.

    python benchmarks/report.py            # about a minute
    python benchmarks/report.py --json     # the same facts for a machine

The study is made up: 12 batch sizes, 3 momenta, curves of 100 epochs, a file for each run as the process engine writes
them. The page is made by ``lightball report`` in a process of its own, imports counted; the best of three tries, since
other work on the machine shows in these times. Drawing needs Chromium on the path.
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
import numpy as np

from lightball.studies import request
from lightball.studies.comparison import Comparison
from lightball.studies.ledger import Ledger, Silent
from lightball.studies.plan import BatchPlan, Plan
from lightball.studies.runs import Outcome, Run, hash_of
from lightball.studies.settings import Settings
from lightball.studies.store import Store

TARGETS = {"seconds": 10.0, "megabytes": 5.0}
EPOCHS = 100
SETTINGS = Settings(
    batch_sizes=tuple(2**k for k in range(12)),
    momentum=(0.5, 0.9, 0.99),
    lr=(0.1, 0.2, 0.4, 0.8, 1.6),
    tuning_seeds=24,
    stages=(16, 32, 64),
    epochs=EPOCHS,
    max_extensions=0,
)


class MadeUp:
    """An engine that makes outcomes up; momentum helps more, the larger the batch."""

    def compute(self, chunks: Any) -> Any:
        for chunk in chunks:
            yield chunk, [self._outcome(run) for run in chunk.runs]

    def close(self) -> None: ...

    def _outcome(self, run: Run) -> Outcome:
        noise = np.random.default_rng([run.seed, run.batch_size, int(1000 * run.momentum)]).normal(size=EPOCHS + 1)
        help_ = 0.02 * run.momentum * np.log2(run.batch_size)
        level = 0.3 + 0.2 * abs(np.log2(run.effective_lr / 0.4)) - help_ + 0.02 * noise[-1]
        curve = level + (2.3 - level) * np.exp(-np.arange(EPOCHS + 1) / 10) * (1 + 0.05 * noise)
        untrained: Any = {"train_loss": 2.3, "validation_accuracy": 0.1, "test_accuracy": 0.1}
        final: Any = {"train_loss": float(curve[-1]), "validation_accuracy": 1 - level, "test_accuracy": 1 - level}
        return Outcome(run, (2.3, *curve[1:].tolist()), untrained, final)


def make_study(folder: Path) -> int:
    """Fill a folder with the made-up study; the number of its runs."""
    plan = Plan(
        tuple(BatchPlan(b, 100, 1, False, 1, (1, 1), 1.0, pairs_together=False) for b in SETTINGS.batch_sizes), 1
    )
    basis = {"benchmark": "report"}
    about = {"versions": {"lightball": "0"}, "hardware": "any"}
    with Store(folder, basis, about) as store:
        asked = request.new("benchmark", SETTINGS, plan, about, ["lightball", "compare", "benchmark"])
        store.save_json(request.NAME, request.as_json(asked))
        ledger = Ledger(plan, hash_of(basis), MadeUp(), store, Silent())
        Comparison(SETTINGS, ledger, store).run()
        return ledger.computed


def make_page(folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lightball", "report", str(folder), "--quiet"], check=True, capture_output=True
    )
    return time.perf_counter() - start


def draw(page: Path) -> float | None:
    """Seconds until Chromium has drawn every chart; None where there is none."""
    executable = shutil.which("chromium")
    if executable is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = make_study(folder)
        tries = [make_page(folder) for _ in range(3)]
        page = folder / "report.html"
        facts = {
            "runs": runs,
            "seconds": min(tries),
            "seconds_of_tries": tries,
            "megabytes": page.stat().st_size / 1e6,
            "seconds_to_draw": draw(page),
        }
    missed = [name for name, most in TARGETS.items() if facts[name] >= most]
    if as_json:
        click.echo(json.dumps({**facts, "targets": TARGETS, "missed": missed}, indent=2))
    else:
        drawn = facts["seconds_to_draw"]
        click.echo(f"{runs:,} runs: page made in {facts['seconds']:.1f} s (target: below 10 s)")
        click.echo(f"its size: {facts['megabytes']:.1f} MB (target: below 5 MB)")
        click.echo(f"drawn in a browser in {drawn:.1f} s" if drawn else "no Chromium to draw it")
        click.echo(f"missed: {', '.join(missed)}" if missed else "all targets met")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
