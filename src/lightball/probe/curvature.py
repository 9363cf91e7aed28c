"""Products with the Hessian, or the Gauss–Newton matrix, of the mean loss over some batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.probe.batches import Batch, num_examples
from lightball.probe.objective import Objective
from lightball.probe.second_order import Graph, gauss_newton, graph_bytes, hessian, refused

if TYPE_CHECKING:
    from jaxtyping import Float

Kind = Literal["hessian", "ggn"]
MEMORY_BUDGET = 4 * 2**30
"""Bytes that kept graphs, and a Lanczos basis, may take unless told otherwise."""


# A CPU gains by batching small operations only: beyond its cache it waits for memory, as long for joint passes.
_SMALL_GRAPH = 4 * 2**20


class Curvature:
    """v ↦ H v for the Hessian H of the mean loss over all examples of ``batches``, or its Gauss–Newton part.

    Batches count by their numbers of examples. The graph of a gradient is kept from call to call as long as all that
    are kept fit into the budget, and made anew in each call where not. Several vectors share the graph; on a GPU, or
    where the graph is small, they share its operations too (by vmap, if all operations have a batched form).

    Args:
        objective: the loss at its point.
        batches: together the examples of the mean; what is normalised by the batch is so within each.
        kind: "hessian", or "ggn" for Jᵀ H_out J with outputs' Jacobian J (the loss must be ``supervised``).
        memory_budget: bytes for kept graphs.

    Raises:
        InputError: no batch, an empty one, or a kind that the loss does not have.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Sequence[Batch],
        kind: Kind = "hessian",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        if kind not in ("hessian", "ggn"):
            raise InputError(f"curvature is {kind!r}, but must be 'hessian' or 'ggn'")
        if not batches:
            raise InputError("there is no batch to take the curvature of, but at least one is needed")
        self.objective, self.batches, self.kind, self.memory_budget = objective, list(batches), kind, memory_budget
        self._sizes = [num_examples(batch) for batch in self.batches]
        self.num_examples = sum(self._sizes)
        self.dim = objective.dim
        self._leaves = objective.leaves()
        self._kept: dict[int, tuple[Graph, int]] = {}
        self._together = True

    def __call__(self, vectors: Float[Tensor, "vector dim"]) -> Float[Tensor, "vector dim"]:
        """The products with each of the vectors.

        Raises:
            InputError: the loss is not finite, cannot be differentiated twice, or its second derivative is not finite.
        """
        vectors = vectors.to(self.objective.device, self.objective.dtype)
        total = torch.zeros_like(vectors)
        for number, (batch, size) in enumerate(zip(self.batches, self._sizes, strict=True)):
            # Backward passes run in the scope too, since activation checkpointing repeats forward passes in them.
            with self.objective.substituted(self._leaves, number):
                graph, size_of_graph = self._graph(number, batch)
                products = self._products(graph, size_of_graph, vectors)
            total += products * (size / self.num_examples)
        if not total.isfinite().all():
            raise InputError(
                "a product with the curvature is not finite although the gradient is: the second derivative of some "
                "operation is infinite here, such as that of a square root at 0 (add a small constant inside it)"
            )
        return total

    def loss_and_gradient(self) -> tuple[float, Float[Tensor, "dim"]]:
        """The mean loss and its gradient from the graphs that products use, so that they share a forward pass.

        Raises:
            InputError: as a call.
        """
        loss, gradient = 0.0, torch.zeros(self.dim, dtype=self.objective.dtype, device=self.objective.device)
        for number, (batch, size) in enumerate(zip(self.batches, self._sizes, strict=True)):
            share = size / self.num_examples
            with self.objective.substituted(self._leaves, number):
                if self.kind == "hessian":
                    *gradients, value = self._graph(number, batch)[0].roots
                    loss += share * value.item()
                    gradient += share * self.objective.flat(gradients)
                    continue
            value_here, gradient_here = self.objective.loss_and_gradient(batch, number)
            loss += share * value_here
            gradient += share * gradient_here
        return loss, gradient

    def _graph(self, number: int, batch: Batch) -> tuple[Graph, int]:
        if number in self._kept:
            return self._kept[number]
        make = hessian if self.kind == "hessian" else gauss_newton
        graph = make(self.objective, self._leaves, batch)
        taken = graph_bytes(graph.roots)
        if sum(size for _, size in self._kept.values()) + taken <= self.memory_budget:
            self._kept[number] = graph, taken
        return graph, taken

    def _products(self, graph: Graph, taken: int, vectors: Tensor) -> Tensor:
        gains = self.objective.device.type != "cpu" or taken <= _SMALL_GRAPH
        at_once = max(1, self.memory_budget // max(taken, 1)) if gains else 1
        return torch.cat([self._joint(graph, some) for some in torch.split(vectors, at_once)])

    def _joint(self, graph: Graph, vectors: Tensor) -> Tensor:
        """All vectors in one pass, or one after another where an operation has no batched form."""
        if len(vectors) > 1 and self._together:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    parts = torch.func.vmap(lambda *v: tuple(graph.product(v)))(*self.objective.parts(vectors))
                return self._flat(parts, len(vectors))
            except (RuntimeError, NotImplementedError):
                self._together = False
        return torch.stack([self._single(graph, vector) for vector in vectors])

    def _single(self, graph: Graph, vector: Tensor) -> Tensor:
        try:
            return self.objective.flat(graph.product(self.objective.parts(vector)))
        except (RuntimeError, NotImplementedError) as error:
            known = refused(error, graph)
            if known is None:
                raise
            raise known from error

    def _flat(self, parts: Sequence[Tensor], num_vectors: int) -> Tensor:
        return torch.cat([part.reshape(num_vectors, -1).to(self.objective.device) for part in parts], dim=1)
