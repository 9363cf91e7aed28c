"""Plain SGD on bfloat16 weights without a float32 copy, by how a step is rounded: train loss on the digits.

    python benchmarks/low_precision.py            # about two minutes on one core
    python benchmarks/low_precision.py --json     # the same facts for a machine

A network 64-128-10 on scikit-learn's 1,797 digits, batch 64, 60 epochs, no momentum; weights, activations and
gradients in bfloat16, next to float32. At a small learning rate most updates are below half a unit in the last place
of a bfloat16 weight: rounded to nearest they are lost and training stalls, with no error in sight. The arms of a seed
share initial weights and batches. The loss is that of the final weights on all digits, computed in float32; the table
shows its mean over seeds with the standard error, and how many of the weights that had a gradient the first step left
unmoved.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightball.optim import SGD

ARMS = {
    "float32": (torch.float32, "nearest", 4),
    "bfloat16, nearest": (torch.bfloat16, "nearest", 2),
    "bfloat16, stochastic": (torch.bfloat16, "stochastic", 2),
    "bfloat16, kahan": (torch.bfloat16, "kahan", 4),
}
BATCH_SIZE = 64


@dataclass(frozen=True)
class Row:
    """One arm at one learning rate."""

    lr: float
    arm: str
    bytes_per_weight: int
    loss: float
    standard_error: float
    unmoved: float


def digits() -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32) / 16
    return x - x.mean(0), torch.tensor(bunch.target)


def train(x: Tensor, y: Tensor, arm: str, lr: float, seed: int, epochs: int) -> tuple[float, float]:
    """The final loss, and the share of weights that the first step left as they were though it had a gradient."""
    dtype, rounding, _ = ARMS[arm]
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    weights = [p for p in model.to(dtype).parameters() if p.ndim == 2]
    start = [p.detach().clone() for p in weights]
    options: dict[str, Any] = {"rounding": rounding, "seed": seed}
    optimizer = SGD(model.parameters(), lr=lr, **options)
    batches, unmoved = torch.Generator().manual_seed(seed), None
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=batches).split(BATCH_SIZE):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows].to(dtype)).float(), y[rows]).backward()
            optimizer.step()
            unmoved = _unmoved(weights, start) if unmoved is None else unmoved
    with torch.no_grad():
        return nn.functional.cross_entropy(model.float()(x), y).item(), unmoved or 0.0


def _unmoved(weights: list[Tensor], start: list[Tensor]) -> float:
    still = sum(int(((p == before) & (p.grad != 0)).sum()) for p, before in zip(weights, start, strict=True))
    return still / sum(int((p.grad != 0).sum()) for p in weights)


def measure(lr: float, arm: str, seeds: int, epochs: int) -> Row:
    x, y = digits()
    losses, shares = zip(*(train(x, y, arm, lr, seed, epochs) for seed in range(seeds)), strict=True)
    error = statistics.stdev(losses) / seeds**0.5 if seeds > 1 else float("nan")
    return Row(lr, arm, ARMS[arm][2], statistics.fmean(losses), error, statistics.fmean(shares))


@click.command()
@click.option("--lr", "rates", type=float, multiple=True, default=(0.1, 0.01, 0.003), show_default=True)
@click.option("--seeds", default=4, show_default=True)
@click.option("--epochs", default=60, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(rates: tuple[float, ...], seeds: int, epochs: int, as_json: bool) -> None:
    """Train loss by rounding of bfloat16 weights."""
    torch.set_num_threads(1)
    rows = [measure(lr, arm, seeds, epochs) for lr in rates for arm in ARMS]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print("| lr | weights | bytes a weight | unmoved by step 1 | train loss |")
    print("|---|---|---|---|---|")
    for row in rows:
        loss = f"{row.loss:.4f} ± {row.standard_error:.4f}"
        print(f"| {row.lr:g} | {row.arm} | {row.bytes_per_weight} | {row.unmoved:.0%} | {loss} |")


if __name__ == "__main__":
    main()
