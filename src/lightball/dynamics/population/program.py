"""A traced step made quick where it is short: populations take millions of steps of a few operations each.

Three rewritings of its graph, none of which changes a bit of the result on the CPU: what depends on hyperparameters
alone is computed when they change, short constants are widened, and operators are called the short way, in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from lightball.dynamics.stepper import States, compiled, leaves, trace

if TYPE_CHECKING:
    from lightball.oracles.protocol import NoisyGradients, Tensors
    from lightball.rules import Hyperparameters

aten = torch.ops.aten
# The same kernels by a shorter way: from Python, an operator called by its overload takes three times as long.
_QUICK: dict[Any, Callable[..., Tensor]] = {
    aten.add.Tensor: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.div.Tensor: torch.div,
    aten.neg.default: torch.neg,
    aten.addcmul.default: torch.addcmul,
    aten.pow.Tensor_Scalar: torch.pow,
    aten.mm.default: torch.mm,
    aten.bmm.default: torch.bmm,
    aten.t.default: torch.t,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.expand.default: Tensor.expand,
    aten.view.default: Tensor.view,
    aten.copy_.default: Tensor.copy_,
}
_ELEMENTWISE = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.addcmul.default}
_NO_VIEWS = {*_ELEMENTWISE, aten.neg.default, aten.pow.Tensor_Scalar, aten.mm.default, aten.bmm.default}
_SHORT_ROW = 64


class Program:
    """One step of so many replicas, for shapes and dtypes that are fixed; it may run in several threads.

    ``constants_of`` maps the tensor hyperparameters to what ``__call__`` takes of them, once whenever they change.
    """

    @torch.no_grad()
    def __init__(
        self, oracle: NoisyGradients, x: Tensors, states: States, sample: Tensor, hyper: Hyperparameters, compile: bool
    ) -> None:
        inputs = leaves(x, states, sample, hyper)
        num_hyper = sum(isinstance(value, Tensor) for value in vars(hyper).values())
        graph = trace(oracle, x, states, sample, hyper, with_losses=False)
        self.constants_of, rest = split(graph, num_hyper)
        widen_constants(rest)
        if compile:
            constants = self.constants_of(*inputs[len(inputs) - num_hyper :])
            self._step = compiled(rest, [*inputs[: len(inputs) - num_hyper], *constants])
        else:
            self._step = quicken(rest).forward

    def __call__(self, sample: Tensor, *places: Tensor) -> None:
        """Move: ``places`` are the parameters and buffers, which are written into, and the constants."""
        self._step(sample, *places)


def split(graph_module: fx.GraphModule, num_last: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Set apart what depends on the last ``num_last`` inputs alone: (constants_of, rest).

    ``graph(*first, *last)`` is ``rest(*first, *constants_of(*last))``.
    """
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    last = inputs[len(inputs) - num_last :]
    apart = dict.fromkeys(last)
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.all_input_nodes and apart.keys() >= set(node.all_input_nodes):
            apart[node] = None
    handed_over = [node for node in apart if any(user not in apart for user in node.users)]

    before, known = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in apart:
        known[node] = before.node_copy(node, known.__getitem__)
    before.output(tuple(known[node] for node in handed_over))

    after, known = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in inputs[: len(inputs) - num_last]:
        known[node] = after.node_copy(node)
    for node in handed_over:
        known[node] = after.placeholder(node.name)
        known[node].meta = node.meta
    for node in graph_module.graph.nodes:
        if node not in known and node not in apart:
            known[node] = after.node_copy(node, known.__getitem__)
    return fx.GraphModule(graph_module, before), fx.GraphModule(graph_module, after)


def widen_constants(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Give constants of short rows a row for each replica, in place.

    Loops over rows of a few numbers cost several times as much as one long loop: with a curvature of 10 numbers the
    compiled step of 20,000 replicas takes 330 µs, with 20,000 × 10 of them 60.
    """
    for node in graph_module.graph.nodes:
        if node.op != "get_attr":
            continue
        value = getattr(graph_module, node.target)
        shapes = {tuple(user.meta["val"].shape) for user in node.users if user.target in _ELEMENTWISE}
        whole = len(shapes) == 1 and all(user.target in _ELEMENTWISE for user in node.users)
        if whole and 0 < value.ndim < len(shape := shapes.pop()) and shape[-1] < _SHORT_ROW:
            # Under a name of its own: other nodes may read the short one.
            node.target = "_".join((node.target, "wide", *map(str, shape)))
            setattr(graph_module, node.target, value.expand(shape).contiguous())
    graph_module.recompile()
    return graph_module


def quicken(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Call operators the short way and write results where they are copied to, in place; for graphs not compiled."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is not aten.copy_.default:
            continue
        target, source = node.args[:2]
        assert isinstance(target, fx.Node)
        assert isinstance(source, fx.Node)
        if _may_be_written_at_once(target, source, copy=node):
            source.kwargs = {"out": target}
            node.replace_all_uses_with(target)
            graph.erase_node(node)
    for node in graph.nodes:
        node.target = _QUICK.get(node.target, node.target)
    graph_module.recompile()
    return graph_module


def _may_be_written_at_once(target: fx.Node, source: fx.Node, copy: fx.Node) -> bool:
    """Whether the target is there, and has been read for the last time, not through a view, when the source is."""
    if target.op != "placeholder" or source.target not in _ELEMENTWISE or source.kwargs:
        return False
    made, place = source.meta["val"], target.meta["val"]
    if (made.shape, made.dtype) != (place.shape, place.dtype):
        return False
    readers = [user for user in target.users if user is not copy]
    return all(user.target in _NO_VIEWS and (user is source or user < source) for user in readers)
