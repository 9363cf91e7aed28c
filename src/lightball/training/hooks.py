"""What modules of a model may ask of the loop: a word ahead of each step, and one after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Prepares(Protocol):
    """A module that has work to do ahead of a step, such as decoding images in other processes."""

    def prepare(self, step: int, inputs: Tensor) -> None:
        """Called with the inputs of a training step, in the order in which they will be used.

        That is while the step before is still to be computed, and for a run's first step right before it. Among
        several processes, ``inputs`` are those of this one.
        """


@runtime_checkable
class Settles(Protocol):
    """A module that gathers something in the forward passes of a step, to be made use of once, at its end."""

    def settle(self) -> None:
        """Called after the update of a training step."""


@dataclass(frozen=True)
class Hooks:
    """The modules of one model that have them."""

    preparing: tuple[Prepares, ...]
    settling: tuple[Settles, ...]

    @property
    def found(self) -> bool:
        return bool(self.preparing or self.settling)

    def prepare(self, step: int, inputs: Tensor) -> None:
        for module in self.preparing:
            module.prepare(step, inputs)

    def settle(self) -> None:
        for module in self.settling:
            module.settle()


def find_hooks(model: nn.Module) -> Hooks:
    """Looks at every module once."""
    modules = list(model.modules())
    return Hooks(
        tuple(module for module in modules if isinstance(module, Prepares)),
        tuple(module for module in modules if isinstance(module, Settles)),
    )
