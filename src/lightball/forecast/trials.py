"""Short runs of SGD beyond the rate at which it is stable on a quadratic: how soft that limit is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch

from lightball.forecast.phase import Trial
from lightball.oracles import MinibatchStream, Sampling
from lightball.training.evaluation import mean_score
from lightball.training.recipe import Recipe
from lightball.training.state import start
from lightball.training.step import take_step
from lightball.workloads import Workload

RATIO = math.sqrt(2.0)
"""Of each rate to the one before."""
_MOST = 13  # 64 times 2/λ_max


def trials_of(
    workload: Workload,
    sharpness: float,
    untrained: float,
    batch_size: int,
    num_steps: int,
    seeds: Sequence[int],
    device: torch.device,
) -> Iterator[Trial]:
    """SGD from initial weights at 2/λ_max, √2 times that, and so on until it is no good any more.

    That is when the mean loss over ``seeds`` ends no lower than ``untrained``, or higher than at each of the two rates
    before. Rates share the seeds. To be called where generators may be drawn from.

    Cost: ``num_steps`` gradients for each seed at each of 2 to 13 rates.
    """
    losses: list[float] = []
    for place in range(_MOST):
        rate = 2 / sharpness * RATIO**place
        recipe = Recipe(batch_size, rate)
        losses.append(fmean(_loss_after(workload, recipe, num_steps, seed, device) for seed in seeds))
        yield Trial(rate, num_steps, losses[-1])
        if losses[-1] >= untrained or (place >= 2 and losses[-1] > max(losses[-3:-1])):
            return


def _loss_after(workload: Workload, recipe: Recipe, num_steps: int, seed: int, device: torch.device) -> float:
    state = start(workload, recipe, seed, device)
    draws = Sampling(len(workload.train), recipe.batch_size)
    stream = MinibatchStream(draws, [seed], workload.train.inputs.device)
    for step in range(num_steps):
        if not take_step(state, workload, recipe, [stream(step)[0]], recipe.effective_lr):
            return math.inf
    loss = mean_score(state.model, workload.loss, workload.train, 256, "float32")
    return loss if math.isfinite(loss) else math.inf
