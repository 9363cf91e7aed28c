"""The examples of each step, and word of them ahead of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles import MinibatchStream, Sampling
from lightball.training.ranks import Ranks
from lightball.training.recipe import Recipe
from lightball.training.state import TrainingState
from lightball.training.step import micro_batches
from lightball.workloads import Workload

if TYPE_CHECKING:
    from jaxtyping import Int


class Minibatches:
    """Step → its examples: one minibatch, or two for SVAG. Ask for the steps in order.

    A model with modules that prepare is told of each step one ahead; see :mod:`lightball.training.hooks`.
    """

    def __init__(self, state: TrainingState, workload: Workload, recipe: Recipe, seed: int, num_steps: int) -> None:
        self._inputs = workload.train.inputs
        self._stream = MinibatchStream(sampling_of(workload, recipe), [seed], self._inputs.device)
        self._state, self._recipe, self._num_steps = state, recipe, num_steps
        self._ahead: tuple[int, list[Tensor]] | None = None

    def __call__(self, step: int) -> list[Int[Tensor, "batch"]]:
        if not self._state.hooks.preparing:
            return self._draw(step)
        now = self._ahead[1] if self._ahead is not None and self._ahead[0] == step else self._announced(step)
        self._ahead = (step + 1, self._announced(step + 1)) if step + 1 < self._num_steps else None
        return now

    def _draw(self, step: int) -> list[Tensor]:
        stream = self._stream
        if self._recipe.ell == 1:
            return [stream(step)[0]]
        return [stream(2 * step)[0], stream(2 * step + 1)[0]]

    def _announced(self, step: int) -> list[Tensor]:
        minibatches = self._draw(step)
        parts = [part for batch in minibatches for part in micro_batches(batch, self._recipe, self._state.ranks)]
        self._state.hooks.prepare(step, self._inputs[torch.cat(parts)])
        return minibatches


def sampling_of(workload: Workload, recipe: Recipe) -> Sampling:
    """Raises `InputError` for a batch that does not fit the training data."""
    return Sampling(len(workload.train), recipe.batch_size, recipe.sampling, recipe.drop_last)


def require_divisible(sampling: Sampling, recipe: Recipe, ranks: Ranks) -> None:
    """Refuse batches that do not give every process as many examples.

    Raises:
        InputError: says the micro-batches, the number of processes, and a batch size that does.
    """
    sizes = [recipe.batch_size]
    if not recipe.drop_last and sampling.num_examples % recipe.batch_size:
        sizes.append(sampling.num_examples % recipe.batch_size)
    for size in sizes:
        parts = sorted({len(part) for part in torch.arange(size).chunk(recipe.accumulate)})
        if all(part % ranks.size == 0 for part in parts):
            continue
        last = size != recipe.batch_size
        named = f"an epoch's last batch, of {size} examples" if last else f"batch size {size}"
        split = f" in micro-batches of {' and '.join(map(str, parts))}" if recipe.accumulate > 1 else ""
        advice = "drop_last" if last else f"a batch size that is a multiple of {ranks.size * recipe.accumulate}"
        raise InputError(
            f"{named}{split} does not divide among {ranks.size} processes: choose {advice}, or another number of "
            "processes"
        )
