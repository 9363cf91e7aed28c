"""A sampled oracle whose replicas get names: noise by seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.oracles.protocol import SampledOracle, Stream, Tensors
from lightball.oracles.seeds import generator

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Seeded:
    """A sampled oracle as one by seeds: replicas with equal seeds see equal noise, wherever and whenever they run.

    A seed's noise is drawn in blocks of ``steps_per_epoch`` steps, one block of all seeds in memory at a time. All
    replicas start where the oracle starts.
    """

    oracle: SampledOracle
    steps_per_epoch: int = 100

    def init(self, seeds: Sequence[int]) -> Tensors:
        """The start of ``oracle``, one replica for each seed."""
        return self.oracle.start(len(seeds))

    def stream(self, seeds: Sequence[int]) -> Stream:
        """Step → the samples of one replica for each seed, in the order of the seeds."""
        device = next(iter(self.oracle.start(1).values())).device
        blocks: dict[int, Tensor] = {}

        def sample(step: int) -> Tensor:
            block, position = divmod(step, self.steps_per_epoch)
            if block not in blocks:
                blocks.clear()
                # The steps of a block are drawn as if they were replicas: either way, independent samples.
                draws = [
                    self.oracle.draw(self.steps_per_epoch, generator(use="noise", seed=seed, block=block))
                    for seed in seeds
                ]
                blocks[block] = torch.stack(draws, dim=1).to(device)
            return blocks[block][position]

        return sample

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """That of ``oracle``: the loss and the noisy gradient of each replica."""
        return self.oracle.noisy_gradient(x, sample)

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """L(x) of ``oracle``."""
        return self.oracle.loss(x)
