"""Studies killed by SIGKILL at random moments: what they leave, and whether they end as if nothing had happened.

    python benchmarks/kill.py                       # 25 kills, about 5 minutes on 2 cores
    python benchmarks/kill.py --engine process
    python benchmarks/kill.py --kills 5 --json      # the same facts for a machine

A study runs once without a kill. Then the same command is started again and again in another folder and killed, half
of the times with its worker processes: once in four while it starts, else when it has finished a random number of
further chunks and a random fraction of a second has passed. When it ends by itself it goes on in another folder, until
there were as many kills as asked for. After each kill every file under a final name must be whole, and every study
that ends must have the result, to the bit, and the runs of the first. The exit code is 1 if one has not.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

import lightball
from lightball.studies.store import survey

STUDY = shlex.split(
    "compare digits --batch-sizes 16,64 --epochs 6 --stages 6 --tuning-seeds 2 --lr 0.2,0.4 --max-extensions 1 "
    "--compile off --workers 2 --json --no-report"
)


@dataclass
class Facts:
    """What was seen."""

    engine: str
    kills: int = 0
    kills_before_the_first_chunk: int = 0
    studies_finished: int = 0
    damaged_files: int = 0
    results_that_differ: int = 0
    runs_that_differ: int = 0
    slowest_end_of_workers: float = 0.0


@click.command()
@click.option("--kills", default=25, show_default=True)
@click.option("--engine", type=click.Choice(["vectorised", "process"]), default="vectorised", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--json", "as_json", is_flag=True)
def main(kills: int, engine: str, seed: int, as_json: bool) -> None:
    """Kill studies and compare what becomes of them with one that was left alone."""
    draw = random.Random(seed)
    facts = Facts(engine)
    with tempfile.TemporaryDirectory() as home:
        alone = Path(home, "alone")
        expected = finish(start_study(alone, engine), alone)
        number, most = 0, num_chunks(alone)
        while facts.kills < kills:
            number += 1
            folder = Path(home, str(number))
            while facts.kills < kills:
                study = start_study(folder, engine)
                if ends_before(random_moment(draw, folder, most), study):
                    break
                kill(study, with_workers=bool(draw.randrange(2)), facts=facts)
                look_at(folder, facts)
                if not as_json:
                    click.echo(f"kill {facts.kills}: {num_chunks(folder)} chunks in folder {number}")
            else:
                study = start_study(folder, engine)
            compare_with(expected, finish(study, folder), facts)
    click.echo(json.dumps(asdict(facts), indent=1) if as_json else in_words(facts))
    sys.exit(bool(facts.damaged_files or facts.results_that_differ or facts.runs_that_differ))


def start_study(folder: Path, engine: str) -> subprocess.Popen[str]:
    """In a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lightball", *STUDY, "--engine", engine, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def random_moment(draw: random.Random, folder: Path, most: int) -> Callable[[], bool]:
    """Whether it has come."""
    start = time.monotonic()
    if draw.random() < 0.25:
        delay = draw.uniform(0.1, 6.0)
        return lambda: time.monotonic() - start > delay
    enough = num_chunks(folder) + draw.randint(1, max(1, most // 3))
    delay = draw.uniform(0.0, 0.5)
    reached: list[float] = []

    def has_come() -> bool:
        if not reached and num_chunks(folder) >= enough:
            reached.append(time.monotonic())
        return bool(reached) and time.monotonic() - reached[0] > delay

    return has_come


def ends_before(moment: Callable[[], bool], study: subprocess.Popen[str]) -> bool:
    """Whether the study ends by itself before a moment comes."""
    while not moment():
        if study.poll() is not None:
            return True
        time.sleep(0.005)
    return False


def kill(study: subprocess.Popen[str], with_workers: bool, facts: Facts) -> None:
    """SIGKILL; workers that are left must end by themselves."""
    (os.killpg if with_workers else os.kill)(study.pid, signal.SIGKILL)
    study.communicate()
    facts.kills += 1
    start = time.monotonic()
    while group_exists(study.pid) and time.monotonic() - start < 60:
        time.sleep(0.05)
    facts.slowest_end_of_workers = max(facts.slowest_end_of_workers, time.monotonic() - start)


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def look_at(folder: Path, facts: Facts) -> None:
    if not (folder / "study.json").exists():
        facts.kills_before_the_first_chunk += 1
        return
    facts.kills_before_the_first_chunk += num_chunks(folder) == 0
    facts.damaged_files += len(survey(folder).damaged)


def num_chunks(folder: Path) -> int:
    return len(list(folder.glob("chunks/*.parquet")))


def finish(study: subprocess.Popen[str], folder: Path) -> tuple[dict[str, Any], Any]:
    """What the study found, without what may differ: its time, its folder, and what it found there."""
    out, err = study.communicate()
    if study.returncode:
        raise SystemExit(f"the study ended with exit code {study.returncode}: {err}")
    result = json.loads(out)
    for name in ("seconds", "folder", "runs", "report"):  # of which a study that was resumed has others
        del result[name]
    return result, lightball.load(folder).replace_schema_metadata(None)


def compare_with(expected: tuple[dict[str, Any], Any], found: tuple[dict[str, Any], Any], facts: Facts) -> None:
    facts.studies_finished += 1
    facts.results_that_differ += found[0] != expected[0]
    facts.runs_that_differ += not found[1].equals(expected[1])


def in_words(facts: Facts) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in asdict(facts).items())


if __name__ == "__main__":
    main()
