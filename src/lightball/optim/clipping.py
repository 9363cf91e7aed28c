"""Clipping of gradients by their norm: coefficients, and which norm each way of clipping goes by.

    g ← min(1, max_norm / (norm + 1e-6)) · g

In `step`, when every gradient is there: "parameter" takes each gradient's own norm, "global" that of all of them.
In backward, where a gradient is gone before the last one comes: "parameter" again; "previous", the global norm of
the step before; "exact", the global norm found by a first backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.optim.options import is_number

IN_STEP = ("parameter", "global")
IN_BACKWARD = ("parameter", "previous", "exact")


def require_clipping(max_norm: float | None, clipping: str, in_backward: bool) -> None:
    """Refuse a way of clipping that is unknown or does not go with where the update is made. Raises `InputError`."""
    if max_norm is not None and not (is_number(max_norm) and 0 < max_norm < math.inf):
        shown = f"{max_norm:g}" if is_number(max_norm) else repr(max_norm)
        raise InputError(f"max_norm is {shown}; required is a finite number > 0, or None for no clipping")
    if clipping in (IN_BACKWARD if in_backward else IN_STEP):
        return
    if clipping in IN_STEP:  # so it is "global", in backward
        raise InputError(
            "clipping is 'global' with in_backward=True, which never has all gradients at once; use 'previous' "
            "(the norm of the step before) or 'exact' (two backward passes), or in_backward=False"
        )
    if clipping in IN_BACKWARD:
        raise InputError(
            f"clipping is '{clipping}' without in_backward=True, where all gradients are there; use 'global'"
        )
    raise InputError(
        f"unknown clipping '{clipping}'; valid are {', '.join(IN_STEP)}, and with in_backward=True "
        f"{', '.join(IN_BACKWARD)}"
    )


def clip_coefficient(norm: Tensor, max_norm: float) -> Tensor:
    """What to multiply a gradient by, a 0-dim tensor: no value is read, so no device waits.

    The 1e-6 and the clamp are those of `torch.nn.utils.clip_grad_norm_`, whose result it equals to the bit in
    float32; for bfloat16 it is finer. A NaN norm gives NaN, an infinite one 0.
    """
    return torch.clamp(max_norm / (norm + 1e-6), max=1.0)


def norm_of(gradient: Tensor) -> Tensor:
    """The Euclidean norm as a 0-dim tensor in float32 or wider. Raises `InputError` for a sparse gradient."""
    if gradient.is_sparse:
        raise InputError(
            "max_norm is set and a gradient is sparse, which cannot be clipped; use sparse=False in the embedding, or "
            "max_norm=None"
        )
    norm: Tensor = torch.linalg.vector_norm(gradient)
    return norm.to(torch.promote_types(norm.dtype, torch.float32))


def global_norm(norms: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients together from the norm of each, on the device of the first; 0 of none."""
    each = list(norms)
    if not each:
        return torch.zeros(())
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(each[0].device) for norm in each]))
    return total


def clipped(gradient: Tensor, coefficient: Tensor) -> Tensor:
    """The gradient times the coefficient: in its own memory, or in new memory if another tensor shares it."""
    coefficient = coefficient.to(gradient.device)
    if is_alone(gradient):
        return gradient.mul_(coefficient)
    return (gradient * coefficient).to(gradient.dtype)


def is_alone(gradient: Tensor) -> bool:
    """Whether nobody else has the gradient's memory, so that it may be written to.

    Autograd hands gradients on without a copy: those of a and b in a.view(-1) + b.view(-1) are one memory, and what
    is written into one is in the other. Goes by a count that torch has but does not document; False where it has none.
    """
    count = getattr(torch._C, "_storage_Use_Count", None)
    if count is None:
        return False
    storage, orphan = gradient.untyped_storage(), torch.empty(0).untyped_storage()
    return bool(count(storage._cdata) <= count(orphan._cdata) + 1)  # the orphan's own tensor is gone
