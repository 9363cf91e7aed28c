"""The gradients of a tied weight added up in place: two of its size are alive at a time instead of three.

A linear layer's gradient leaves autograd as a transposed view, which keeps its base alive. Autograd adds to a gradient
in place only if nothing else holds its memory, so that for an output layer tied to an embedding both gradients and
their sum are alive together. That is the peak of a step that updates in backward, where no other gradient is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

_DEPTH = 4  # from a layer's output to its weight: view, product, transpose


def sum_in_place(model: nn.Module) -> int:
    """Have autograd add the gradients of every weight that several modules hold in place; returns their number.

    Gradients are the same, to the bit, for any optimizer. Registers a forward hook on these modules, which copies of
    the model keep. Without effect under `torch.compile`, and where the graph of a backward is asked for.
    """
    held = [(module, name, p) for module in model.modules() for name, p in module._parameters.items() if p is not None]
    uses = Counter(id(p) for _, _, p in held)
    for module, name, p in held:
        if uses[id(p)] > 1:
            module.register_forward_hook(_Separating(name))
    return sum(count > 1 for count in uses.values())


@dataclass(frozen=True)
class _Separating:
    """A forward hook: gradients that come from this use of the parameter ``name`` will hold their memory alone."""

    name: str

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not isinstance(output, Tensor):
            return
        for node, index in _edges_into(getattr(module, self.name), output):
            node.register_hook(_WithoutBase(index))


@dataclass(frozen=True)
class _WithoutBase:
    """A hook of a node of the graph: a detached view shares the memory of its base, but does not keep the base."""

    index: int

    def __call__(self, gradients: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...] | None:
        if torch.is_grad_enabled():  # create_graph: the graph goes on through the base
            return None
        return tuple(g.detach() if i == self.index and g is not None else g for i, g in enumerate(gradients))


def _edges_into(weight: Tensor, output: Tensor) -> Iterator[tuple[Node, int]]:
    """The nodes, a few steps from ``output``, that hand a gradient to ``weight``, each with the output that does."""
    level = [] if output.grad_fn is None else [output.grad_fn]
    for _ in range(_DEPTH):
        edges = [(node, i, into) for node in level for i, (into, _) in enumerate(node.next_functions) if into]
        yield from ((node, i) for node, i, into in edges if getattr(into, "variable", None) is weight)
        level = [into for _, _, into in edges]
