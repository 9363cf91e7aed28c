"""What an optimizer does with the gradients of a few experiments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightball.optim.auditing.stand_in import StandIn

Maker = Callable[..., StandIn]
STEPS = 12  # of an experiment; more than any method that starts gently needs to show what it is
LATE = 3  # the step of a late impulse
SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)


@dataclass(frozen=True)
class Responses:
    """Displacements of each step, shape (step, element), in units of ``scale``, the size of gradients and parameters.

    first, late: of an impulse g at step 0 and at step ``LATE``, with parameters held at 0. constant: of g at every
    step, held at 0. decay: of no gradient, held at x. free: positions of a free run from x under ``gradients``.
    """

    impulse: Tensor
    start: Tensor
    gradients: Tensor
    first: Tensor
    late: Tensor
    constant: Tensor
    decay: Tensor
    free: Tensor

    def of(self, part: slice) -> Responses:
        """Those of one group."""
        return Responses(*(getattr(self, name)[..., part] for name in self.__dataclass_fields__))


def measure(make: Maker, scale: float) -> Responses:
    """Drive fresh stand-ins through the experiments, all groups at once; about 60 steps."""
    impulse, start, gradients = excitation(make().size)
    none, origin = torch.zeros_like(gradients), torch.zeros_like(start)
    return Responses(
        impulse=impulse,
        start=start,
        gradients=gradients,
        first=held(make, _at(0, impulse), origin, scale),
        late=held(make, _at(LATE, impulse), origin, scale),
        constant=held(make, impulse.expand_as(gradients), origin, scale),
        decay=held(make, none, start, scale),
        free=make().run(scale * gradients, scale * start) / scale,
    )


def excitation(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """An impulse and a start, (element,), and gradients, (step, element): numbers of size about 1, none near 0."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((STEPS + 2, size), dtype=torch.float64, generator=generator) + 0.5
    signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
    impulse, start, *gradients = (values * signs).unbind()
    return impulse, start, torch.stack(gradients)


def held(make: Maker, gradients: Tensor, at: Tensor, scale: float = 1.0) -> Tensor:
    """Displacements of parameters that are put back before every step."""
    return make().run(scale * gradients, scale * at, hold=True) / scale - at


def _at(step: int, impulse: Tensor) -> Tensor:
    gradients = torch.zeros((STEPS, impulse.numel()), dtype=impulse.dtype)
    gradients[step] = impulse
    return gradients


def from_zero(make: Maker, scale: float) -> Tensor:
    """Positions of a free run from 0, in units of the gradients' scale; linear methods have one at all scales."""
    _, start, gradients = excitation(make().size)
    return make().run(scale * gradients, torch.zeros_like(start)) / scale
