"""Populations against the machine's limit and against other libraries, in coordinate-steps per second, in one run.

    python benchmarks/ensemble.py                        # about 3 minutes on 2 cores
    python benchmarks/ensemble.py --rounds 3 --json FILE # the same facts for a machine
    python benchmarks/ensemble.py --device cuda          # without NumPy, torchsde and diffrax

SGD with momentum on 20,000 × 10 float32 coordinates of a quadratic with fresh Gaussian noise, and 10,000 diagonal
networks f(u, v) = A (u² − v²) of 20 parameters with label noise on 5 examples. Populations are shown as `simulate`
runs them by default, which compiles a step only for runs much longer than these, and compiled. The limit is that no
step can be made faster than its noise is drawn: twice what one thread draws by `torch.Tensor.normal_`, with nothing
else to do. Sides take turns; the table shows medians of the rounds, of ratios too, with the smallest and the largest.
What is imported, traced or compiled before the first step is not counted; it is shown as set-up.

Networks draw a quarter as many normals as they have coordinates, so that the limit is no bound for them, only the same
yardstick. torchsde and diffrax solve the SDE of SGD, without momentum, by Euler–Maruyama with one step for each of SGD.

`normal_, two threads` is what two threads together do in the same round: on a machine that does other work, it falls
short of the limit by what the machine has not to give, and shares of it say more than shares of the limit.

The exit code is 1 if neither form of the population reaches its target on the quadratic, or if a million trajectories
of 1,000 steps take more memory than 100,000 of them and 64 MiB.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import torch

import ensemble_peers as peers

THREADS = 2
TARGET = 0.7
MEMORY_MIB = 64
ONE, BOTH = "normal_, one thread", "normal_, two threads"
DEFAULT, COMPILED = "lightball, default", "lightball, compiled"
STEPS = {"lightball": 1000, "torchsde": 20, "diffrax": 20, "numpy": 60}
PEER_STEPS = 200


class Stopwatch:
    """An observable: when trajectories started and ended."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self, x: dict[str, torch.Tensor], m: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.device != "cpu":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        return x["x"][:, 0]

    @property
    def seconds(self) -> float:
        return max(self.times) - min(self.times)


def oracle_of(task: str, device: str) -> Any:
    from lightball.oracles import LabelNoise, Quadratic

    if task == "quadratic":
        return Quadratic(peers.curvature().to(device), peers.NOISE**2, torch.ones(peers.DIM, device=device))
    features, targets = (value.to(device) for value in peers.network())

    def predict(x: torch.Tensor) -> torch.Tensor:
        u, v = x[:, : peers.DIM], x[:, peers.DIM :]
        return (u * u - v * v) @ features.T

    return LabelNoise(predict, targets, peers.NOISE, torch.ones(2 * peers.DIM, device=device))


def population(task: str, device: str, compiled: bool | None) -> tuple[peers.Run, list[float]]:
    """Steps → seconds of `simulate`, from the first trajectory's start to the last one's end; and its set-up times."""
    from lightball.dynamics.population import Arm, simulate

    oracle = oracle_of(task, device)
    number, lr = (peers.TRAJECTORIES, peers.LR) if task == "quadratic" else (peers.NETWORKS, peers.NETWORK_LR)
    arms = {"sgdm": Arm(lr, peers.MOMENTUM)}
    set_up: list[float] = []

    def run(num_steps: int) -> float:
        watch, start = Stopwatch(device), time.perf_counter()
        simulate(
            oracle,
            arms,
            num_steps,
            number,
            {"watch": watch},
            record_at=[0, num_steps],
            device=device,
            threads=THREADS,
            compiled=compiled,
        )
        set_up.append(min(watch.times) - start)
        return watch.seconds

    return run, set_up


def both_threads(device: str) -> peers.Run:
    """The noise alone, drawn by all threads."""
    runs = [peers.normals(device) for _ in range(THREADS)]

    def run(num_steps: int) -> float:
        threads = [threading.Thread(target=each, args=(num_steps,)) for each in runs]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - start) / THREADS

    return run


def sides_of(task: str, device: str) -> tuple[dict[str, peers.Run], dict[str, list[float]]]:
    """Everything that is measured for a task, by name, and set-up times of populations."""
    sides: dict[str, peers.Run] = {ONE: peers.normals(device)}
    if device == "cpu":
        sides[BOTH] = both_threads(device)
    set_up = {}
    for name, compiled in ((DEFAULT, None), (COMPILED, True)):
        if name == DEFAULT or device == "cpu":
            sides[name], set_up[name] = population(task, device, compiled)
    of_task = {name.removesuffix(f"_{task}"): make for name, make in vars(peers).items() if name.endswith(f"_{task}")}
    for name, make in of_task.items():
        if name == "torch":
            sides["torch, one plain loop"] = make(device)
        elif device == "cpu":
            sides[name] = make()
    return sides, set_up


def measure(task: str, device: str, rounds: int) -> dict[str, Any]:
    sides, set_up = sides_of(task, device)
    steps = {name: STEPS.get(name.partition(",")[0], PEER_STEPS) for name in sides}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for name, run in sides.items():
        run(steps[name])
    for _ in range(rounds):
        for name, run in sides.items():
            rates[name].append(peers.TRAJECTORIES * peers.DIM * steps[name] / run(steps[name]))
    workers = THREADS if device == "cpu" else 1
    limits = [workers * rate for rate in rates[ONE]]
    now = rates.get(BOTH, limits)
    return {
        "task": task,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "limit": statistics.median(limits),
        "rows": [
            {
                "name": name,
                "per_s": statistics.median(values),
                "per_s_range": [min(values), max(values)],
                **_ratio("share_of_limit", values, limits),
                **_ratio("share_of_both_threads", values, now),
                "set_up_s": statistics.median(set_up[name]) if name in set_up else None,
            }
            for name, values in rates.items()
        ],
    }


def _ratio(name: str, values: list[float], of: list[float]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(values, of, strict=True)]
    return {name: statistics.median(ratios), f"{name}_range": [min(ratios), max(ratios)]}


def show(result: dict[str, Any]) -> None:
    click.echo(f"\n{result['task']}, {result['device']}: limit {result['limit'] / 1e6:,.0f} M normals/s")
    click.echo(f"{'':<24} {'M/s (range)':>20} {'of the limit':>20} {'of both threads':>16} {'set-up':>8}")
    for row in result["rows"]:
        low, high = (value / 1e6 for value in row["per_s_range"])
        share, share_range = row["share_of_limit"], "–".join(f"{v:.2f}" for v in row["share_of_limit_range"])
        set_up = "" if row["set_up_s"] is None else f"{row['set_up_s']:.1f} s"
        click.echo(
            f"{row['name']:<24} {row['per_s'] / 1e6:>7.0f} {f'({low:.0f}–{high:.0f})':>12} "
            f"{share:>7.2f} {f'({share_range})':>12} {row['share_of_both_threads']:>16.2f} {set_up:>8}"
        )


def peak_memory(num_trajectories: int, num_steps: int, device: str) -> dict[str, float]:
    """Seconds, and the peak of this process in MiB, after so many trajectories of 10 coordinates."""
    from lightball.dynamics import Arm, coordinate, simulate, square

    start = time.perf_counter()
    simulate(
        oracle_of("quadratic", device),
        {"sgdm": Arm(peers.LR, peers.MOMENTUM)},
        num_steps,
        num_trajectories,
        {"x": coordinate(0), "square": square(0)},
        device=device,
        threads=THREADS,
    )
    seconds = time.perf_counter() - start
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {"trajectories": num_trajectories, "steps": num_steps, "seconds": seconds, "peak_mib": peak}


def verdict(result: dict[str, Any]) -> bool:
    """Whether a form of the population reaches the target, and a line for each."""
    shares = {row["name"]: row for row in result["rows"] if row["name"] in (DEFAULT, COMPILED)}
    click.echo()
    for name, row in shares.items():
        met = "reaches" if row["share_of_limit"] >= TARGET else "misses"
        click.echo(
            f"{result['task']}, {name}: {row['share_of_limit']:.2f} of the limit {met} the target of {TARGET}; "
            f"{row['share_of_both_threads']:.2f} of what two threads drew in the same rounds"
        )
    return any(row["share_of_limit"] >= TARGET for row in shares.values())


def show_memory(rows: list[dict[str, float]]) -> bool:
    """Whether memory stayed constant, and a line for each number of trajectories."""
    for row in rows:
        click.echo(
            f"{row['trajectories']:>9,} trajectories × {row['steps']} steps × 10 coordinates: "
            f"{row['seconds']:.0f} s, peak {row['peak_mib']:.0f} MiB"
        )
    more = rows[-1]["peak_mib"] - rows[0]["peak_mib"]
    constant = more <= MEMORY_MIB
    click.echo(f"memory: {more:+.0f} MiB for ten times as many, {'within' if constant else 'beyond'} {MEMORY_MIB} MiB")
    return constant


def memory(device: str) -> list[dict[str, float]]:
    """Each in a process of its own."""
    rows = []
    for number in (100_000, 1_000_000):
        command = [sys.executable, __file__, "--only-memory", str(number), "--device", device]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return rows


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--no-memory", is_flag=True, help="Leave out the million trajectories.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--only-memory", type=int, hidden=True)
def main(rounds: int, device: str, no_memory: bool, json_file: Path | None, only_memory: int | None) -> None:
    """Print the tables; exit code 1 if the population misses its target or its memory grows."""
    torch.set_num_threads(1)
    if only_memory:
        click.echo(json.dumps(peak_memory(only_memory, 1000, device)))
        return
    results = []
    for task in ("quadratic", "network"):
        results.append(measure(task, device, rounds))
        show(results[-1])
    fine = verdict(results[0])
    rows = [] if no_memory else memory(device)
    fine = (not rows or show_memory(rows)) and fine
    if json_file:
        facts = {"torch": torch.__version__, "rounds": rounds, "target": TARGET, "memory_limit_mib": MEMORY_MIB}
        json_file.write_text(json.dumps({**facts, "tasks": results, "memory": rows}, indent=2) + "\n")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
