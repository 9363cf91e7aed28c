"""Products with the Hessian or Gauss–Newton matrix of one batch, through an autograd graph that is built once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad
from torch.autograd.function import BackwardCFunction

from lightball.errors import InputError, reason_of
from lightball.probe.batches import Batch
from lightball.probe.objective import Objective, Supervised, checked

Parts = Sequence[Tensor]


@dataclass(frozen=True)
class Graph:
    """A product on the parameters' parts, linear in them, and the tensors whose autograd graph it runs through."""

    product: Callable[[Parts], Parts]
    roots: Parts


def hessian(objective: Objective, leaves: Parts, batch: Batch) -> Graph:
    """v ↦ H v by a reverse pass through the gradient's graph; about two forward and backward passes each time."""
    value = objective.value(batch)
    gradients = grad(value, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
    return _checked(Graph(_transposed(gradients, leaves), [*gradients, value]))


def gauss_newton(objective: Objective, leaves: Parts, batch: Batch) -> Graph:
    """v ↦ Jᵀ H_out J v, for the outputs' Jacobian J and the Hessian H_out of the mean loss in the outputs.

    J v comes from two reverse passes: u ↦ Jᵀu is linear, and its transpose is J.

    Raises:
        InputError: the loss is no :class:`Supervised`, or the model's output is not one tensor.
    """
    if not isinstance(objective.loss, Supervised):
        raise InputError(
            "Gauss–Newton curvature needs the model's outputs, which a loss(model, batch) hides: "
            "make the loss by supervised(loss_fn) for batches (inputs, targets), or choose curvature='hessian'"
        )
    moved = objective.moved(batch)
    outputs = objective.loss.outputs(objective.model, moved)
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"Gauss–Newton curvature needs a model whose output is one tensor, but it is a {type(outputs).__name__}: "
            "choose curvature='hessian'"
        )
    checked(objective.loss.of(outputs, moved), batch)
    own = outputs.detach().requires_grad_()
    (slope,) = grad(objective.loss.of(own, moved), own, create_graph=True)
    dummy = torch.zeros_like(outputs, requires_grad=True)
    pulled = grad(outputs, leaves, dummy, create_graph=True, allow_unused=True, materialize_grads=True)
    push, bend, pull = _transposed(pulled, [dummy]), _transposed([slope], [own]), _transposed([outputs], leaves)
    return _checked(Graph(lambda v: pull(bend(push(v))), [*pulled, slope, outputs]))


def _transposed(values: Parts, of: Parts) -> Callable[[Parts], Parts]:
    """v ↦ (∂values/∂of)ᵀ v."""
    kept = [i for i, value in enumerate(values) if value.requires_grad]
    outputs = [values[i] for i in kept]

    def product(vectors: Parts) -> Parts:
        if not outputs:
            return [torch.zeros_like(each) for each in of]
        inputs = [vectors[i] for i in kept]
        return grad(outputs, of, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)

    return product


def graph_bytes(roots: Parts) -> int:
    """Memory of what a graph has saved for its backward passes."""
    storages = {}
    for node in _nodes(roots):
        for name in dir(node):
            if name.startswith("_saved") or name == "saved_tensors":
                for tensor in _tensors(getattr(node, name)):
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def refused(error: Exception, graph: Graph) -> InputError | None:
    """What to tell of an operation that cannot be differentiated twice, if that is what ``error`` says."""
    message = str(error)
    named = re.search(r"derivative for '?([\w:.]+)'? is not implemented", message)
    if named:
        return _not_twice(named[1])
    if re.search(r"once_differentiable|double.backward|differentiat\w* twice", message):
        return _not_twice(_functions(graph) or reason_of(error))
    return None


def _checked(graph: Graph) -> Graph:
    """Autograd would pass by a function that is marked as differentiable once, as if it were linear."""
    if any(type(node).__name__ == "Error" for node in _nodes(graph.roots)):
        raise _not_twice(_functions(graph) or "a custom autograd function")
    return graph


def _not_twice(what: str) -> InputError:
    return InputError(
        f"the loss cannot be differentiated twice: {what} has no second derivative (use plain torch operations in its "
        "place, or turn off a fused form of it, such as by attn_implementation='eager' or "
        "torch.backends.cudnn.enabled=False)"
    )


def _functions(graph: Graph) -> str:
    """The custom autograd functions in a graph, which are the ones that may be differentiable only once."""
    kinds: set[type] = {type(node) for node in _nodes(graph.roots)}
    return " or ".join(sorted(kind.__name__ for kind in kinds if issubclass(kind, BackwardCFunction)))


def _nodes(roots: Parts) -> Iterator[torch.autograd.graph.Node]:
    waiting = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _tensors(saved: object) -> Iterator[Tensor]:
    if isinstance(saved, Tensor):
        yield saved
    elif isinstance(saved, tuple | list):
        for each in saved:
            yield from _tensors(each)
