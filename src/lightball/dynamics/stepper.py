"""One step of many replicas as one traced program: draw → gradient → update rule, in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from lightball.dynamics.graph import untranspose_products
from lightball.rules import Hyperparameters, State, kernel

if TYPE_CHECKING:
    from jaxtyping import Float

    from lightball.oracles.protocol import Oracle, Tensors

States = dict[str, State]
"""The kernel's state of every named parameter."""


def compiler_available() -> bool:
    """Whether ``torch.compile`` can build CPU kernels here: it needs a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


class Stepper:
    """Moves replicas of an oracle by one step of the update rule, in place.

    The first call with new shapes traces oracle and kernel into one graph without autograd or vmap (0.1 to 0.3 s);
    with ``compile_width`` the graph of that many replicas is also compiled (5 to 12 s where the cache of
    ``torch.compile`` is cold). Shapes and memory layouts are then fixed: parameters and state must be contiguous.

    Share one stepper between ensembles of the same oracle.
    """

    def __init__(self, oracle: Oracle, compile_width: int | None = None) -> None:
        self.oracle = oracle
        self.compile_width = compile_width
        self._programs: dict[Any, Callable[..., Tensor]] = {}

    @torch.no_grad()
    def __call__(self, x: Tensors, states: States, sample: Tensor, hyper: Hyperparameters) -> Float[Tensor, "replica"]:
        """Replace ``x`` and ``states`` by their values after one step; returns the loss on the sample before it."""
        key = (sample.shape, *_constants(hyper))
        if key not in self._programs:
            program: Callable[..., Tensor] = trace(self.oracle, x, states, sample, hyper)
            if sample.shape[0] == self.compile_width:
                # Nothing changes between calls but values, and checking that costs as much as a small step.
                program = torch.compile(program, fullgraph=True, options={"guard_filter_fn": _no_guards})
            self._programs[key] = program
        return self._programs[key](x, states, sample, *_tensors(hyper))


def trace(oracle: Oracle, x: Tensors, states: States, sample: Tensor, hyper: Hyperparameters) -> fx.GraphModule:
    """The graph of one step at these shapes: (x, states, sample, *tensor hyperparameters) → losses.

    Hyperparameters that are numbers are constants of the graph. Nothing that is passed is changed.
    """
    names = _tensor_names(hyper)

    def step(x: Tensors, states: States, sample: Tensor, *values: Tensor) -> Tensor:
        at = Hyperparameters(**{**vars(hyper), **dict(zip(names, values, strict=True))})
        losses, gradients = oracle.noisy_gradient(x, sample)
        for name, gradient in gradients.items():
            moved, state = kernel.step(x[name], gradient, states[name], at)
            x[name].copy_(moved)
            for key, value in state.items():
                states[name][key].copy_(value)
        return losses

    # Tracing runs the step once: on copies.
    copy = {name: p.clone() for name, p in x.items()}
    copies = {name: {key: value.clone() for key, value in s.items()} for name, s in states.items()}
    return untranspose_products(make_fx(step)(copy, copies, sample, *_tensors(hyper)))


def _tensor_names(hyper: Hyperparameters) -> tuple[str, ...]:
    return tuple(name for name, value in vars(hyper).items() if isinstance(value, Tensor))


def _tensors(hyper: Hyperparameters) -> tuple[Tensor, ...]:
    return tuple(value for value in vars(hyper).values() if isinstance(value, Tensor))


def _constants(hyper: Hyperparameters) -> tuple[object, ...]:
    """What a program is made for: the numbers themselves, and of tensors what they are made of."""
    return tuple(value.dtype if isinstance(value, Tensor) else value for value in vars(hyper).values())


def _no_guards(guards: list[Any]) -> list[bool]:
    return [False] * len(guards)
