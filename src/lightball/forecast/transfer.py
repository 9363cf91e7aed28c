"""What a unit of gradient, of buffer and of noise at one curvature does to the position, step by step.

At curvature h a step is linear in z = (x, m), z' = A z + b (g + ξ), with A and b from `rules.transition`, so that

    E x_k = a_k g + c_k m₀          Var x_k = (s/B) V_k        for a gradient g at x = 0, a buffer m₀, noise s/B

Independent batches add b bᵀ to the covariance at every step. Batches of size B that walk through M examples without
replacement have Cov(ξᵢ, ξⱼ) = −s/(M − 1) between two of one epoch, and (s/B) (M − B)/(M − 1) each, with s the
covariance over the M examples. So, in units of s/B,

    V = M/(M − 1) Σ_steps r rᵀ − B/(M − 1) Σ_epochs (Σ_{steps of it} r)(Σ_{steps of it} r)ᵀ

with r the response to one step's noise, which the same recursion carries along (arXiv:2307.15196, §2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightball.rules import canonical, transition

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


def memory_of(momentum: float, num_steps: int) -> float:
    """By how many steps SGDM stays behind SGD under a constant gradient, from m₀ = 0: β(1 − βᴷ)/(1 − β)."""
    return momentum * (1 - momentum**num_steps) / (1 - momentum)


class Linear:
    """A and b of one step for each case (a rate and a momentum) and curvature; shapes (case, node, 2, 2) and (…, 2)."""

    def __init__(
        self,
        curvature: Float64[np.ndarray, "node"],
        effective_lr: Float64[np.ndarray, "case"],
        momentum: Float64[np.ndarray, "case"],
    ) -> None:
        rule = canonical(torch.from_numpy(effective_lr), torch.from_numpy(momentum))
        one = transition(rule, torch.from_numpy(np.ascontiguousarray(curvature))[None])
        self.matrix: Float64[np.ndarray, "case node 2 2"] = one.matrix.numpy()
        self.gradient: Float64[np.ndarray, "case node 2"] = one.noise.numpy()


def mean_positions(
    linear: Linear, record: tuple[int, ...]
) -> tuple[Float64[np.ndarray, "record case node"], Float64[np.ndarray, "record case node"]]:
    """a_k and c_k for the recorded k: positions after a unit gradient at x = 0, and after a unit buffer there."""
    (a, b), (c, d) = np.moveaxis(linear.matrix, (-2, -1), (0, 1))
    force = np.stack([linear.gradient, np.zeros_like(linear.gradient)])
    x, m = np.zeros(force.shape[:-1]), np.zeros(force.shape[:-1])
    m[1] = 1.0
    found, wanted = {0: x}, set(record)
    for step in range(1, max(record) + 1):
        x, m = a * x + b * m + force[..., 0], c * x + d * m + force[..., 1]
        if step in wanted:
            found[step] = x
    both = np.stack([found[step] for step in record])
    return both[:, 0], both[:, 1]


@dataclass(frozen=True)
class Shuffled:
    """Batches of an epoch are drawn without replacement, for each case; incomplete last ones are left out.

    Forecasts begin with an epoch.
    """

    training_examples: int
    batch_size: Int[np.ndarray, "case"]

    @property
    def epoch_steps(self) -> Int[np.ndarray, "case"]:
        """Batches of an epoch."""
        return self.training_examples // self.batch_size


class NoiseSpread:
    """The variance of the position for noise of variance 1 a step, advanced step by step; see the top of the module."""

    def __init__(self, linear: Linear, shuffled: Shuffled | None = None) -> None:
        self._linear, self._shuffled = linear, shuffled
        shape = linear.gradient.shape[:-1]
        self._alone = np.zeros((3, *shape))  # Var x, Cov(x, m), Var m
        self._finished = np.zeros((3, *shape))
        self._epoch = np.zeros((2, *shape))  # x and m
        self._steps = 0

    def advance(self, variance: Float64[np.ndarray, "case"]) -> None:
        """One step whose noise has this variance in each case, if batches were independent."""
        (a, b), (c, d) = np.moveaxis(self._linear.matrix, (-2, -1), (0, 1))
        kick = np.moveaxis(self._linear.gradient, -1, 0) * np.sqrt(variance)[:, None]
        self._alone = _carried(a, b, c, d, self._alone) + _squared(kick)
        if self._shuffled is not None:
            x, m = self._epoch
            self._finished = _carried(a, b, c, d, self._finished)
            self._epoch = np.stack((a * x + b * m, c * x + d * m)) + kick
            self._steps += 1
            ends = self._steps % self._shuffled.epoch_steps == 0
            self._finished[:, ends] += _squared(self._epoch[:, ends])
            self._epoch[:, ends] = 0.0

    @property
    def variance(self) -> Float64[np.ndarray, "case node"]:
        """Var x now."""
        alone: np.ndarray = self._alone[0]
        if self._shuffled is None:
            return alone
        others = self._shuffled.training_examples - 1
        share = (self._shuffled.batch_size / others)[:, None]
        together = self._finished[0] + self._epoch[0] ** 2
        return np.asarray(np.maximum(0.0, (others + 1) / others * alone - share * together))


def _carried(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """A C Aᵀ for A = [[a, b], [c, d]] and C as (xx, xm, mm): far faster than products of small matrices."""
    xx, xm, mm = covariance
    return np.stack(
        (
            a * a * xx + 2 * a * b * xm + b * b * mm,
            a * c * xx + (a * d + b * c) * xm + b * d * mm,
            c * c * xx + 2 * c * d * xm + d * d * mm,
        )
    )


def _squared(vector: np.ndarray) -> np.ndarray:
    x, m = vector
    return np.stack((x * x, x * m, m * m))
