"""The one update rule: the linear rule of `torch.optim.SGD`, as a pure function.

    g ← g + weight_decay · x
    b ← momentum · b + (1 − dampening) · g
    d ← g + momentum · b if nesterov else b          (d ← g at momentum 0)
    x ← x − lr · d

SGD is the case momentum 0. The canonical form m' = β m + (1 − β) g, x' = x − η m' is the case lr = η,
momentum = dampening = β from a zero buffer (arXiv:2307.15196, §2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightball.errors import InputError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Hyperparameters:
    """What one step needs beside x, g and the state; the names and meanings are those of `torch.optim.SGD`.

    A Python number applies to every replica. A tensor has the shape of the leading replica axes of x, say
    (replica,), and is cast to x's dtype.
    """

    lr: float | Tensor
    momentum: float | Tensor = 0.0
    dampening: float | Tensor = 0.0
    weight_decay: float | Tensor = 0.0
    nesterov: bool | Tensor = False


def canonical(
    effective_lr: float | Tensor, momentum: float | Tensor = 0.0, weight_decay: float | Tensor = 0.0
) -> Hyperparameters:
    """The canonical form m' = β m + (1 − β) g, x' = x − η m', with η = effective_lr and β = momentum.

    Start it from `init(x)`, m₀ = 0, as arXiv:2307.15196, §2 does.
    """
    return Hyperparameters(effective_lr, momentum, dampening=momentum, weight_decay=weight_decay)


def init(x: Tensor) -> State:
    """The state m₀ = 0: the first step is dampened like every other.

    The empty state {} is torch's first step instead: the buffer becomes g, undampened. The two differ only
    where dampening is not 0. Memory: one copy of x.
    """
    return {"momentum_buffer": torch.zeros_like(x)}


def step(x: Tensor, g: Tensor, state: State, hyper: Hyperparameters) -> tuple[Tensor, State]:
    """One step of the rule at the top of this module, out of place: (x, g, state) to (x', state').

    Shapes: x, g and the buffer are (*replica, *dims); hyperparameters are numbers or (*replica). With numbers
    the result is bit-equal to `torch.optim.SGD` on the CPU in float32; with tensors it is equal to rounding.
    Momentum that is the number 0 touches no buffer and returns the state as it came, as torch does; momentum
    that is a tensor always keeps one. Traceable by `make_fx`, `vmap` and `torch.compile`: no value is read.
    Cost: one pass over memory for each of weight decay, momentum (two if dampened or numbers), Nesterov, x'.
    """
    lr, momentum, dampening, weight_decay = (
        _aligned(value, x) for value in (hyper.lr, hyper.momentum, hyper.dampening, hyper.weight_decay)
    )
    if not _is_number_zero(weight_decay):
        g = _add_scaled(g, weight_decay, x)
    if _is_number_zero(momentum):
        return _add_scaled(x, -lr, g), state
    buffer = state.get("momentum_buffer")
    # torch clones too: the buffer must not be a view of a gradient that the caller may write into
    buffer = g.clone() if buffer is None else _accumulate(buffer, g, momentum, dampening)
    direction = _direction(g, buffer, momentum, hyper.nesterov)
    return _add_scaled(x, -lr, direction), {"momentum_buffer": buffer}


def _accumulate(buffer: Tensor, g: Tensor, momentum: float | Tensor, dampening: float | Tensor) -> Tensor:
    """momentum · buffer + (1 − dampening) · g."""
    if not isinstance(momentum, Tensor):
        return _add_scaled(buffer * momentum, 1 - dampening, g)
    if _is_number_zero(dampening):
        return torch.addcmul(g, momentum, buffer)
    # A replica without momentum ignores dampening, as the number 0 does.
    share = torch.where(momentum == 0, torch.ones_like(momentum), 1 - dampening)
    return torch.addcmul(share * g, momentum, buffer)


def _direction(g: Tensor, buffer: Tensor, momentum: float | Tensor, nesterov: bool | Tensor) -> Tensor:
    """What lr multiplies: the buffer, or g + momentum · buffer with Nesterov."""
    if isinstance(nesterov, Tensor):
        mask = nesterov.reshape(nesterov.shape + (1,) * (g.ndim - nesterov.ndim))
        return torch.where(mask, _add_scaled(g, momentum, buffer), buffer)
    return _add_scaled(g, momentum, buffer) if nesterov else buffer


def _add_scaled(a: Tensor, scale: float | Tensor, b: Tensor) -> Tensor:
    """a + scale · b in one pass; `torch.add` with a number rounds as `torch.optim.SGD` does."""
    return torch.addcmul(a, scale, b) if isinstance(scale, Tensor) else torch.add(a, b, alpha=scale)


def _aligned(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A tensor (*replica) gets trailing axes of length 1, to broadcast over x; a number stays as it is."""
    if not isinstance(value, Tensor):
        return value
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim)).to(x.dtype)


def _is_number_zero(value: float | Tensor) -> bool:
    return not isinstance(value, Tensor) and value == 0


def validate(hyper: Hyperparameters) -> None:
    """Refuse hyperparameters that the rule cannot use; reads their values, so call it outside the hot path.

    Requires lr finite and ≥ 0, 0 ≤ momentum < 1, 0 ≤ dampening < 1, weight_decay finite and ≥ 0, and with
    nesterov momentum > 0 and dampening 0. Raises `InputError` that names the first value at fault.
    """
    _require_range("lr", hyper.lr, math.inf, "a finite number ≥ 0; 0.1 is a usual start")
    _require_range("momentum", hyper.momentum, 1.0, "0 ≤ momentum < 1; use 0 for SGD, 0.9 for the usual momentum")
    _require_range("dampening", hyper.dampening, 1.0, "0 ≤ dampening < 1; use 0 for the usual sum form")
    _require_range("weight_decay", hyper.weight_decay, math.inf, "a finite number ≥ 0; use 0 for none")
    nesterov, momentum, dampening = (torch.as_tensor(v) for v in (hyper.nesterov, hyper.momentum, hyper.dampening))
    if bool((nesterov & ((momentum == 0) | (dampening != 0))).any()):
        raise InputError(
            f"nesterov got momentum {_short(momentum)} and dampening {_short(dampening)}; it requires "
            "momentum > 0 and dampening 0: set those, or nesterov=False"
        )


def _require_range(name: str, value: float | Tensor, below: float, required: str) -> None:
    values = torch.as_tensor(value, dtype=torch.float64).flatten()
    bad = values[~((values >= 0) & (values < below))]  # a NaN fails both comparisons
    if len(bad):
        raise InputError(f"{name} is {bad[0].item():g}; required is {required}")


def _short(value: Tensor) -> str:
    return f"{value.item():g}" if value.ndim == 0 else str(value.tolist())
