"""SVAG: an oracle made from an oracle, with the same mean, ℓ times the covariance and nothing else changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles.protocol import CovarianceOracle, NoisyGradients, Oracle, SampledOracle, Stream, Tensors

if TYPE_CHECKING:
    from jaxtyping import Float

Inner = TypeVar("Inner", bound=NoisyGradients, covariant=True)


def svag_weights(ell: float) -> tuple[float, float]:
    """(r₊, r₋) = ½ (1 ± √(2ℓ − 1)), for which r₊ + r₋ = 1 and r₊² + r₋² = ℓ.

    Raises:
        InputError: ell < 1, or not a number.
    """
    number: object = ell
    if not (isinstance(number, Real) and 1 <= ell < math.inf):
        shown = f"{ell:g}" if isinstance(number, Real) else repr(number)
        raise InputError(f"ell is {shown}; required is a finite number ≥ 1; 1 changes nothing")
    spread = math.sqrt(2 * ell - 1)
    return (1 + spread) / 2, (1 - spread) / 2


@dataclass(frozen=True, eq=False)
class Svag(Generic[Inner]):
    """Stochastic variance amplified gradient: ĝ = r₊ g₁ + r₋ g₂ of two independent gradients, r± = ½ (1 ± √(2ℓ − 1)).

    E ĝ = ∇L and Cov ĝ = ℓ Σ exactly, since r₊ + r₋ = 1 and r₊² + r₋² = ℓ. With lr/ℓ and ℓ times as many steps the SDE
    stays what it was, while the curvature-induced term of a step falls as 1/ℓ; ``ell=1`` is the oracle itself.
    It is whatever ``oracle`` is, by seeds or sampled, with a covariance or without; a gradient costs two.

    By seeds, step k takes the samples 2k and 2k + 1 of the oracle, which under sampling without replacement come from
    the same epoch where the number of its steps is even. Source: arXiv:2102.12470.

    Raises:
        InputError: ell < 1.
    """

    oracle: Inner
    ell: float

    def __post_init__(self) -> None:
        svag_weights(self.ell)

    @property
    def weights(self) -> tuple[float, float]:
        """(r₊, r₋)."""
        return svag_weights(self.ell)

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """r₊ and r₋ times the losses and the gradients on the two samples, added up."""
        (first, one), (second, other) = (self.oracle.noisy_gradient(x, sample[:, i]) for i in range(2))
        plus, minus = self.weights
        return plus * first + minus * second, {name: plus * g + minus * other[name] for name, g in one.items()}

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """L(x) of ``oracle``."""
        return self.oracle.loss(x)

    def start(self: Svag[SampledOracle], num_replicas: int) -> Tensors:
        """The start of ``oracle``."""
        return self.oracle.start(num_replicas)

    def draw(self: Svag[SampledOracle], num_replicas: int, generator: torch.Generator) -> Tensor:
        """Two samples of the oracle, ``[replica, 2, ...]``."""
        return torch.stack([self.oracle.draw(num_replicas, generator) for _ in range(2)], dim=1)

    def noise_factor(self: Svag[CovarianceOracle], x: Tensors) -> Float[Tensor, "replica dim noise"]:
        """√ℓ S(x)."""
        return math.sqrt(self.ell) * self.oracle.noise_factor(x)

    @property
    def steps_per_epoch(self: Svag[Oracle]) -> int:
        """Half of those of ``oracle``, at least 1."""
        return max(self.oracle.steps_per_epoch // 2, 1)

    def init(self: Svag[Oracle], seeds: Sequence[int]) -> Tensors:
        """The initial parameters of ``oracle``."""
        return self.oracle.init(seeds)

    def stream(self: Svag[Oracle], seeds: Sequence[int]) -> Stream:
        """Step k → the samples 2k and 2k + 1 of ``oracle``, ``[replica, 2, ...]``.

        Raises `InputError` if the batches of a step differ in size.
        """
        inner = self.oracle.stream(seeds)

        def sample(step: int) -> Tensor:
            one, other = inner(2 * step), inner(2 * step + 1)
            if one.shape != other.shape:
                raise InputError(
                    f"SVAG combines two batches of equal size, but those of step {step} have {one.shape[1]} and "
                    f"{other.shape[1]} examples: use Sampling(drop_last=True)"
                )
            return torch.stack((one, other), dim=1)

        return sample
