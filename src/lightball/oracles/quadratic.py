"""The quadratic with Gaussian noise: every quantity of the theory has a closed form here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.oracles.protocol import Stream, Tensors
from lightball.oracles.seeds import generator

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class GaussianQuadratic:
    """L(x) = ½ Σᵢ hᵢ xᵢ², g = h x + σ v with v ~ N(0, I), drawn in blocks of ``steps_per_epoch`` steps.

    ``curvature`` is ``Float[Tensor, "dim"]``; all replicas start at ``start``.
    """

    curvature: Float[Tensor, "dim"]
    noise: float
    start: Float[Tensor, "dim"]
    steps_per_epoch: int = 100

    def init(self, seeds: Sequence[int]) -> Tensors:
        return {"x": self.start.expand(len(seeds), -1).clone()}

    def stream(self, seeds: Sequence[int]) -> Stream:
        shape = (self.steps_per_epoch, *self.curvature.shape)
        blocks: dict[int, Tensor] = {}

        def sample(step: int) -> Float[Tensor, "replica dim"]:
            block, position = divmod(step, self.steps_per_epoch)
            if block not in blocks:
                blocks.clear()
                draws = [
                    torch.randn(
                        shape,
                        generator=generator(use="noise", seed=seed, block=block),
                        dtype=self.start.dtype,
                    )
                    for seed in seeds
                ]
                blocks[block] = torch.stack(draws, dim=1).to(self.start.device)
            return blocks[block][position]

        return sample

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        return self.loss(x), {"x": self.curvature * x["x"] + self.noise * sample}

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        return 0.5 * (self.curvature * x["x"] ** 2).sum(dim=-1)
