"""Quadratic forms and measures of the vectors of one probe, which share products with the curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightball.oracles import generator
from lightball.probe.curvature import MEMORY_BUDGET
from lightball.probe.lanczos import lanczos, measure
from lightball.probe.measure import SpectralMeasure
from lightball.probe.record import Buffer

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

Array = np.ndarray
Product = Callable[["Float[Tensor, 'vector dim']"], "Float[Tensor, 'vector dim']"]


@dataclass(frozen=True)
class Measures:
    """Spectral measures of ĝ, of the noise vectors, and of the buffer with ĝ."""

    gradient: SpectralMeasure
    noise: SpectralMeasure
    buffer: Buffer | None


def measures_of(
    product: Product,
    gradient: Float[Tensor, "dim"],
    noise: Float[Tensor, "vector dim"],
    momentum: Float[Tensor, "dim"] | None,
    num_steps: int,
    memory_budget: int,
) -> Measures:
    """All of them from recurrences side by side.

    The measure between g and m comes from those of sum and difference of their directions, by polarisation; taken to
    unit length first, so that a small buffer does not drown in a large gradient.
    """
    starts = [gradient[None], noise]
    if momentum is not None:
        unit, other = _unit(gradient), _unit(momentum)
        starts.append(torch.stack([momentum, unit + other, unit - other]))
    found = measure(lanczos(product, torch.cat(starts), num_steps, memory_budget=memory_budget))
    rows = [SpectralMeasure(found.nodes[i : i + 1], found.weights[i : i + 1]) for i in range(len(found.nodes))]
    count = len(noise)
    buffer = None
    if momentum is not None:
        own, plus, minus = rows[1 + count :]
        scale = float(gradient.double().norm() * momentum.double().norm()) / 4
        nodes = np.concatenate([plus.nodes, minus.nodes], axis=1)
        weights = np.concatenate([plus.weights, -minus.weights], axis=1) * scale
        buffer = Buffer(own, SpectralMeasure(nodes, weights))
    between = SpectralMeasure(found.nodes[1 : 1 + count], found.weights[1 : 1 + count])
    return Measures(rows[0], between, buffer)


def trace_products(product: Product, like: Float[Tensor, "dim"], count: int, seed: int) -> Float64[Array, "vector"]:
    """zᵀHz of random sign vectors z, each with expectation tr H (Hutchinson)."""
    random = generator(use="probe trace", seed=seed)
    signs = torch.randint(0, 2, (count, len(like)), generator=random, dtype=torch.int8).to(like) * 2 - 1
    return products(signs, product(signs))


def products(vectors: Float[Tensor, "vector dim"], images: Float[Tensor, "vector dim"]) -> Float64[Array, "vector"]:
    """v · w row by row, summed in float64."""
    return (vectors.double() * images.double()).sum(dim=1).cpu().numpy()


def largest_node(
    product: Product,
    gradient: Float[Tensor, "dim"],
    num_steps: int,
    seed: int,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> float:
    """The largest Ritz value of Lanczos from the gradient and a random direction, which bounds λ_max from below."""
    random = generator(use="probe halves", seed=seed)
    direction = _unit(torch.randn(len(gradient), generator=random, dtype=torch.float32).to(gradient))
    found = measure(lanczos(product, (_unit(gradient) + direction)[None], num_steps, memory_budget=memory_budget))
    return float(found.nodes[found.weights > 0].max())


def _unit(vector: Float[Tensor, "dim"]) -> Float[Tensor, "dim"]:
    norm = vector.double().norm().to(vector.dtype)
    return vector / norm if norm > 0 else vector
