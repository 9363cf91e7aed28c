"""One step of many replicas as one traced program: draw → gradient → update rule, in place."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_structure, tree_unflatten

from lightball.dynamics.graph import untranspose_products
from lightball.rules import Hyperparameters, State, kernel

if TYPE_CHECKING:
    from jaxtyping import Float

    from lightball.oracles.protocol import NoisyGradients, Tensors

States = dict[str, State]
"""The kernel's state of every named parameter."""


@cache
def compiler_available() -> bool:
    """Whether inductor can build CPU kernels here: it needs a C++ compiler, ``$CXX`` or g++, that runs."""
    path = shutil.which(os.environ.get("CXX") or "g++")
    return path is not None and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0


class Stepper:
    """Moves replicas of an oracle by one step of the update rule, in place.

    The first call with new shapes traces oracle and kernel into one graph without autograd or vmap (0.1 to 0.3 s);
    with ``compile_width`` the graph of that many replicas is also compiled by torch's inductor (some seconds where its
    cache is cold). Shapes and memory layouts are then fixed: parameters and state must be contiguous.

    Share one stepper between ensembles of the same oracle.
    """

    def __init__(self, oracle: NoisyGradients, compile_width: int | None = None) -> None:
        self.oracle = oracle
        self.compile_width = compile_width
        self._programs: dict[Any, Callable[..., Sequence[Tensor]]] = {}

    @torch.no_grad()
    def __call__(self, x: Tensors, states: States, sample: Tensor, hyper: Hyperparameters) -> Float[Tensor, "replica"]:
        """Replace ``x`` and ``states`` by their values after one step; returns the loss on the sample before it."""
        key = (sample.shape, *_constants(hyper))
        if key not in self._programs:
            graph = trace(self.oracle, x, states, sample, hyper)
            compiles = sample.shape[0] == self.compile_width
            self._programs[key] = compiled(graph, leaves(x, states, sample, hyper)) if compiles else graph
        return self._programs[key](*leaves(x, states, sample, hyper))[0]


def trace(
    oracle: NoisyGradients,
    x: Tensors,
    states: States,
    sample: Tensor,
    hyper: Hyperparameters,
    with_losses: bool = True,
) -> fx.GraphModule:
    """The graph of one step at these shapes: (sample, *x, *states, *tensor hyperparameters) → (losses,), or () without.

    It writes into ``x`` and ``states``; hyperparameters that are numbers are constants of it. Nothing that is passed
    here is changed.
    """
    names = _tensor_names(hyper)
    structure = tree_structure((sample, x, states, _tensors(hyper)))

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        sample, x, states, values = tree_unflatten(inputs, structure)
        at = Hyperparameters(**{**vars(hyper), **dict(zip(names, values, strict=True))})
        losses, gradients = oracle.noisy_gradient(x, sample)
        for name, gradient in gradients.items():
            moved, state = kernel.step(x[name], gradient, states[name], at)
            x[name].copy_(moved)
            for key, value in state.items():
                states[name][key].copy_(value)
        return (losses,) if with_losses else ()

    # Tracing runs the step once: on copies.
    copies = [leaf.clone() for leaf in leaves(x, states, sample, hyper)]
    return untranspose_products(make_fx(step)(*copies))


def leaves(x: Tensors, states: States, sample: Tensor, hyper: Hyperparameters) -> list[Tensor]:
    """The tensors of a step in the order of a pytree, by hand: the pytree takes as long as a small step."""
    buffers = (buffer for state in states.values() for buffer in state.values())
    return [sample, *x.values(), *buffers, *_tensors(hyper)]


def compiled(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """The graph through inductor, without the front end of ``torch.compile``: there is nothing left to capture, and
    the guards that it checks at every call cost as much as a fifth of a small step."""
    import torch._inductor

    return torch._inductor.compile(graph, list(inputs))  # type: ignore[no-any-return]


def _tensor_names(hyper: Hyperparameters) -> tuple[str, ...]:
    return tuple(name for name, value in vars(hyper).items() if isinstance(value, Tensor))


def _tensors(hyper: Hyperparameters) -> tuple[Tensor, ...]:
    return tuple(value for value in vars(hyper).values() if isinstance(value, Tensor))


def _constants(hyper: Hyperparameters) -> tuple[object, ...]:
    """What a program is made for: the numbers themselves, and of tensors what they are made of."""
    return tuple(value.dtype if isinstance(value, Tensor) else value for value in vars(hyper).values())
