"""The value of momentum from given weights, measured: pairs of SGD and SGDM with the same data order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from lightball.dynamics import Ensemble, Stepper
from lightball.errors import InputError
from lightball.oracles import MinibatchOracle, Sampling, SamplingKind
from lightball.rules import canonical
from lightball.stats import mean_and_standard_error
from lightball.workloads import Workload

_REPLICAS_AT_ONCE = 192  # models that move side by side: enough to hide the overhead of a step, and still in the cache


@dataclass(frozen=True)
class MeasuredValue:
    """SGD's training loss minus SGDM's after ``num_steps`` at one effective rate; positive favours momentum.

    ``mean`` and ``standard_error`` are over the pairs in which both live, and nan where fewer than two do; ``sgd`` and
    ``sgdm`` are the mean losses. ``failed_sgd`` and ``failed_sgdm`` of the ``pairs`` diverged.
    """

    effective_lr: float
    num_steps: int
    mean: float
    standard_error: float
    sgd: float
    sgdm: float
    pairs: int
    failed_sgd: int = 0
    failed_sgdm: int = 0


def measured_value(
    workload: Workload,
    model: nn.Module,
    effective_lrs: Sequence[float],
    momentum: float = 0.9,
    *,
    batch_size: int,
    num_steps: int | Sequence[int],
    sampling: SamplingKind = "iid",
    precision: float = 0.25,
    fewest_pairs: int = 16,
    most_pairs: int = 256,
    first_seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[tuple[float, int], MeasuredValue]:
    """Train pairs of SGD and SGDM (m₀ = 0) from the weights of ``model``, which stays as it is.

    A pair has the same data order, a function of its seed and the batch size; all rates share the seeds. Pairs are
    added, ``fewest_pairs`` at a time, until the standard error at every horizon is at most ``precision`` of the mean,
    or there are ``most_pairs``. Stopping there favours large means a little; report what was not reached.

    Args:
        model: of the workload, of a kind that can be trained many at once.
        num_steps: the horizons K, one or several; they share the runs.
        sampling: "iid" draws with replacement, "shuffle" walks through permutations.
        first_seed: seeds are counted from here.

    Returns:
        by (effective_lr, num_steps).

    Cost: 2 × pairs × rates × the longest horizon minibatch gradients; memory 2 × 192 models at once.

    Raises:
        InputError: a batch that does not fit the data, rates out of range, or fewer than two pairs.
    """
    horizons = sorted({num_steps} if isinstance(num_steps, int) else set(num_steps))
    if not horizons or horizons[0] < 1:
        raise InputError(f"num_steps is {num_steps}, but must be whole numbers from 1 up")
    if not 2 <= fewest_pairs <= most_pairs:
        raise InputError(
            f"fewest_pairs is {fewest_pairs} and most_pairs {most_pairs}, but must be 2 ≤ fewest_pairs ≤ most_pairs"
        )
    draws = Sampling(len(workload.train), batch_size, sampling)
    oracle = MinibatchOracle(
        partial(deepcopy, model), workload.loss, workload.train.inputs, workload.train.targets, draws, device
    )
    stepper = Stepper(oracle)
    losses: dict[float, np.ndarray] = {rate: np.empty((0, 2, len(horizons))) for rate in effective_lrs}
    pairs = 0
    open_rates = list(losses)
    while open_rates and pairs < most_pairs:
        seeds = range(first_seed + pairs, first_seed + min(pairs + fewest_pairs, most_pairs))
        width = max(1, _REPLICAS_AT_ONCE // (2 * len(seeds)))
        for some in (open_rates[i : i + width] for i in range(0, len(open_rates), width)):
            new = _run(oracle, stepper, seeds, some, momentum, horizons)
            for rate, values in zip(some, new, strict=True):
                losses[rate] = np.concatenate((losses[rate], values))
        pairs += len(seeds)
        open_rates = [rate for rate in open_rates if not _precise(losses[rate], precision)]
    return {
        (rate, horizon): _summary(rate, horizon, values[..., place])
        for rate, values in losses.items()
        for place, horizon in enumerate(horizons)
    }


def _run(
    oracle: MinibatchOracle,
    stepper: Stepper,
    seeds: Sequence[int],
    rates: Sequence[float],
    momentum: float,
    horizons: Sequence[int],
) -> np.ndarray:
    """Losses (rate, seed, rule, horizon); nan where a run has failed."""
    shape = (len(rates), len(seeds), 2)
    lr = torch.tensor(rates, dtype=torch.float64)[:, None, None].expand(shape).flatten()
    beta = torch.tensor([0.0, momentum], dtype=torch.float64).expand(shape).flatten()
    names = [seed for _ in rates for seed in seeds for _ in range(2)]
    ensemble = Ensemble(oracle, names, canonical(lr, beta), stepper=stepper)
    found = []
    for horizon in horizons:
        ensemble.advance(horizon - ensemble.step)
        found.append(ensemble.measure(oracle.loss).reshape(shape).cpu().numpy())
    return np.stack(found, axis=-1)


def _precise(losses: np.ndarray, precision: float) -> bool:
    """Whether more pairs would tell nothing that is needed: precise at all horizons, or failing."""
    summaries = [_summary(0.0, 0, losses[..., place]) for place in range(losses.shape[-1])]
    return all(
        s.standard_error <= precision * abs(s.mean) or 2 * max(s.failed_sgd, s.failed_sgdm) > s.pairs for s in summaries
    )


def _summary(rate: float, horizon: int, losses: np.ndarray) -> MeasuredValue:
    """From losses (pair, rule)."""
    alive = np.isfinite(losses)
    both = losses[alive.all(axis=1)]
    failed = [int(n) for n in (~alive).sum(axis=0)]
    if len(both) < 2:
        return MeasuredValue(rate, horizon, math.nan, math.nan, math.nan, math.nan, len(losses), *failed)
    mean, error = mean_and_standard_error(both[:, 0] - both[:, 1])
    sgd, sgdm = both.mean(axis=0)
    return MeasuredValue(rate, horizon, mean, error, float(sgd), float(sgdm), len(losses), *failed)
