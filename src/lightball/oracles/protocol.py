"""What an oracle is: a loss, and noisy gradients of it for many replicas at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

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


class Oracle(Protocol):
    """A noisy gradient oracle with a replica axis: g = ∇L(x) + σ v, E v = 0, Cov v = Σ(x).

    Randomness and arithmetic are apart: :meth:`stream` draws, :meth:`noisy_gradient` is a deterministic function of
    the parameters and the draw, which can be traced and compiled.

    Source: arXiv:2307.15196, §3 (noisy gradient oracle with scale parameter).
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

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """The loss on the sample and its gradient, for each replica; no side effects, no memory shared with ``x``."""
        ...

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """The loss L(x) itself, without noise, for each replica."""
        ...
