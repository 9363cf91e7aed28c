"""What a probe's parts cost, in multiples of one forward and backward pass, beside other libraries, in one run.

    python benchmarks/probe.py                              # about an hour and a half on one core
    python benchmarks/probe.py --rounds 1 --batch-size 32   # about 5 minutes
    python benchmarks/probe.py --rounds 1 --quick           # without the eight vectors, about 6 minutes
    python benchmarks/probe.py --json                       # the same facts for a machine

A ResNet-20 with GroupNorm (0.27 million parameters) on one batch of 256 random images, float32, one thread: 30 Lanczos
steps for the Hessian from one vector; 20 steps from eight vectors together, against eight runs that each start from
nothing; tr Σ from the batch as 8 microbatches. Everything is counted that a user would wait for: scopes, graphs,
orthogonalisation. Sides take turns, and CPU time is what counts, so that whatever else the machine does falls on none.
The table shows the median over rounds, of each side's ratio to passes in the same round, with the smallest and the
largest.

PyHessian, hessian-eigenthings and curvlinops-for-pytorch are measured where they can be imported, from whatever
PYTHONPATH says (`pip install --target DIR --no-deps PyHessian hessian-eigenthings==1.0.0a5 curvlinops-for-pytorch`, and
what they need besides torch). The exit code is 1 if a target is missed.

What arithmetic allows: a convolution takes three products in a forward and backward pass and six in a product with the
Hessian, so 30 steps take 60 passes if all else were free, and eight vectors, which share the three that make the
gradient and none of the six, take 0.71 of eight runs where no graph is kept and all of them where one is. On a CPU,
which gains nothing by larger operations, the targets of 60 and 0.5 are therefore out of reach; they are kept for GPUs.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import Tensor, nn

from lightball.probe.curvature import Curvature
from lightball.probe.lanczos import lanczos, measure
from lightball.probe.noise import gradient_sample
from lightball.probe.objective import Objective, supervised
from lightball.probe.scope import unchanged
from monitor import resnet

STEPS, EIGHT_STEPS = 30, 20
ONE, TOGETHER, APART = "30 Lanczos steps", "8 vectors × 20 steps", "8 vectors × 20 steps, one by one"
ANEW, ANEW_APART = "8 vectors × 20 steps, no graph kept", "8 vectors × 20 steps, no graph kept, one by one"
NOISE = "tr Σ, 8 microbatches"
TARGETS = {ONE: 60.0, NOISE: 1.2}
HALF = 0.5  # of eight vectors together to one by one
Batch = tuple[Tensor, Tensor]
Side = Callable[[], object]


def lightball_sides(model: nn.Module, batch: Batch, full: bool) -> dict[str, Side]:
    loss = supervised(nn.functional.cross_entropy)
    microbatches = list(zip(batch[0].chunk(8), batch[1].chunk(8), strict=True))
    dim = sum(p.numel() for p in model.parameters())
    starts = torch.randn(8, dim)

    def spectrum(vectors: Tensor, num_steps: int, **budget: int) -> None:
        with unchanged(model):
            product = Curvature(Objective(model, loss), [batch], **budget)
            measure(lanczos(product, vectors, num_steps))

    def apart(**budget: int) -> None:
        for start in starts:
            spectrum(start[None], EIGHT_STEPS, **budget)

    def trace() -> None:
        with unchanged(model):
            gradient_sample(Objective(model, loss), microbatches, 1).trace(50_000)

    sides: dict[str, Side] = {ONE: lambda: spectrum(starts[:1], STEPS), NOISE: trace}
    if full:
        sides[TOGETHER] = lambda: spectrum(starts, EIGHT_STEPS)
        sides[APART] = apart
        sides[ANEW] = lambda: spectrum(starts, EIGHT_STEPS, memory_budget=0)
        sides[ANEW_APART] = lambda: apart(memory_budget=0)
    return sides


def pyhessian(model: nn.Module, batch: Batch) -> Side:
    hessian = importlib.import_module("pyhessian").hessian

    def run() -> None:
        # Power iteration, as its Lanczos ends in a function that torch has no more; either takes a product a step.
        hessian(model, nn.functional.cross_entropy, data=batch, cuda=False).eigenvalues(maxIter=STEPS, tol=0.0)
        model.zero_grad()  # it leaves gradients with their graphs

    return run


def hessian_eigenthings(model: nn.Module, batch: Batch) -> Side:
    library = importlib.import_module("hessian_eigenthings")
    loss = library.supervised_loss(nn.functional.cross_entropy)

    def run() -> None:
        operator = library.HessianOperator(model, [batch], loss)
        library.lanczos_tridiagonal(operator, torch.randn(operator.size), STEPS)

    return run


def curvlinops(model: nn.Module, batch: Batch) -> Side:
    library = importlib.import_module("curvlinops")
    spectra = importlib.import_module("curvlinops.papyan2020traces.spectrum")

    def run() -> None:
        loss, parameters = nn.CrossEntropyLoss(), list(model.parameters())
        operator = library.HessianLinearOperator(model, loss, parameters, [batch], check_deterministic=False)
        spectra.lanczos_approximate_spectrum(operator, STEPS, boundaries=(-10.0, 100.0))

    return run


PEERS = {
    f"PyHessian: {STEPS} power iterations": pyhessian,
    f"hessian-eigenthings: {ONE}": hessian_eigenthings,
    f"curvlinops: {ONE}": curvlinops,
}


def all_sides(model: nn.Module, batch: Batch, full: bool) -> tuple[dict[str, Side], dict[str, str]]:
    """What is measured, by name, and the reason for what is not."""
    sides = {f"lightball: {name}": side for name, side in lightball_sides(model, batch, full).items()}
    missing = {}
    for name, make in PEERS.items():
        try:
            sides[name] = make(model, batch)
        except ImportError as error:
            missing[name] = str(error)
    return sides, missing


def seconds(side: Side) -> float:
    start = time.process_time()
    side()
    return time.process_time() - start


def measured(model: nn.Module, batch: Batch, rounds: int, full: bool) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Multiples of one forward and backward pass in each round, by name."""

    def passes() -> None:
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        model.zero_grad()

    sides, missing = all_sides(model, batch, full)
    for _ in range(2):
        passes()
    ratios: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in list(sides.items()):
            before = min(seconds(passes) for _ in range(3))
            try:
                taken = seconds(side)
            except Exception as error:  # a peer's own failure is a fact, not the end of the benchmark
                if name.startswith("lightball"):
                    raise
                missing[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
                del sides[name], ratios[name]
                continue
            ratios[name].append(taken / statistics.mean([before, min(seconds(passes) for _ in range(3))]))
    return ratios, missing


def verdicts(rows: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Targets, what was measured, and whether it meets them."""
    found = [
        {"what": name, "value": statistics.median(rows[f"lightball: {name}"]), "target": target}
        for name, target in TARGETS.items()
    ]
    for together, apart in ((TOGETHER, APART), (ANEW, ANEW_APART)):
        if f"lightball: {together}" in rows:
            pairs = zip(rows[f"lightball: {together}"], rows[f"lightball: {apart}"], strict=True)
            share = statistics.median(a / b for a, b in pairs)
            found.append({"what": f"{together}, to one by one", "value": share, "target": HALF})
    for each in found:
        each["met"] = each["value"] <= each["target"]
    return found


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--quick", is_flag=True, help="Leave out the eight vectors.")
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, batch_size: int, quick: bool, as_json: bool) -> None:
    """Print the table; exit code 1 if a target is missed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, batch = resnet(), (torch.randn(batch_size, 3, 32, 32), torch.randint(10, (batch_size,)))
    rows, missing = measured(model, batch, rounds, not quick)
    found = verdicts(rows)
    if as_json:
        facts = {"torch": torch.__version__, "rounds": rounds, "batch_size": batch_size}
        click.echo(json.dumps({**facts, "multiples": rows, "missing": missing, "targets": found}, indent=2))
    else:
        num_parameters = sum(p.numel() for p in model.parameters())
        click.echo(f"ResNet-20 with GroupNorm, {num_parameters:,} parameters, batch {batch_size}, median of {rounds}")
        click.echo(f"{'':<60} {'× one forward and backward pass (range)':>40}")
        for name, values in rows.items():
            spread = f"({min(values):.1f}–{max(values):.1f})"
            click.echo(f"{name:<60} {statistics.median(values):>22.1f} {spread:>17}")
        for name, reason in missing.items():
            click.echo(f"{name}: not measured: {reason}")
        for each in found:
            met = "meets" if each["met"] else "misses"
            click.echo(f"{each['what']}: {each['value']:.2f} {met} the target of {each['target']}")
    sys.exit(0 if all(each["met"] for each in found) else 1)


if __name__ == "__main__":
    main()
