"""What an oracle is: a loss, and noisy gradients of it for many replicas at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Tensors = dict[str, Tensor]
"""Named tensors, each with the replica axis first: ``{"weight": Float[Tensor, "replica out in"], ...}``."""

Stream = Callable[[int], Tensor]
"""The random draws of a set of replicas: step index → sample, replica axis first.

A pure function of the seeds and the step, so that a run can be taken up at any step, and two replicas with equal
seeds see equal noise whatever moves them.
"""


class NoisyGradients(Protocol):
    """The arithmetic of a noisy gradient oracle with a replica axis: g = ∇L(x) + σ v, E v = 0, Cov v = Σ(x).

    Randomness and arithmetic are apart: what draws samples is told below, :meth:`noisy_gradient` is a deterministic
    function of the parameters and the draw, which can be traced and compiled.

    Source: arXiv:2307.15196, §3 (noisy gradient oracle with scale parameter).
    """

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """The loss on the sample and its gradient, for each replica; no side effects, no memory shared with ``x``."""
        ...

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """The loss L(x) itself, without noise, for each replica."""
        ...


class Oracle(NoisyGradients, Protocol):
    """An oracle whose replicas have names: every draw is a function of a replica's seed and the step.

    What studies need: a run can be taken up at any step, and shares its noise with its partner wherever that runs.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the data; the unit in which ensembles check and record their replicas."""
        ...

    def init(self, seeds: Sequence[int]) -> Tensors:
        """The initial parameters of one replica for each seed."""
        ...

    def stream(self, seeds: Sequence[int]) -> Stream:
        """The draws of one replica for each seed."""
        ...


class SampledOracle(NoisyGradients, Protocol):
    """An oracle whose replicas are many and nameless: one generator draws for all of them at once.

    What populations of up to millions of trajectories need, of which only moments are asked.
    """

    def start(self, num_replicas: int) -> Tensors:
        """The initial parameters of so many replicas, in memory of their own."""
        ...

    def draw(self, num_replicas: int, generator: torch.Generator) -> Tensor:
        """Fresh samples of one step, independent between replicas, replica axis first, on the generator's device."""
        ...


class CovarianceOracle(SampledOracle, Protocol):
    """A sampled oracle whose noise covariance is known, with one tensor of parameters, ``{"x": "replica dim"}``."""

    def noise_factor(self, x: Tensors) -> Float[Tensor, "replica dim noise"]:
        """S(x) with S Sᵀ = Σ(x), the covariance of one noisy gradient, σ² included; any number of columns."""
        ...
