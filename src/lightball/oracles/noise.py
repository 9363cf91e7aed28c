"""Shapes of noise: independent entries of mean 0 and variance 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float

Noise = Literal["gaussian", "rademacher", "student-t"]


def check_noise(kind: Noise, df: float = 5.0) -> None:
    """Refuse an unknown shape of noise and a Student t without a variance. Raises `InputError`."""
    if kind not in get_args(Noise):
        raise InputError(f"noise is {kind!r}; required is one of {', '.join(get_args(Noise))}")
    if kind == "student-t" and not 2 < df < math.inf:
        raise InputError(
            f"df is {df:g}; required is a finite df > 2, since Student t noise has no variance below: take df=5"
        )


def draw_noise(
    kind: Noise, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float64, df: float = 5.0
) -> Float[Tensor, "..."]:
    """Independent entries of mean 0 and variance 1, on the generator's device.

    ``df`` is the degrees of freedom of "student-t", whose moments of order df and above are infinite. Cost: one pass
    over memory for "gaussian", three for "rademacher", some ten in float64 for "student-t". Raises `InputError`.
    """
    check_noise(kind, df)
    if kind == "student-t":
        return _student_t(shape, generator, df).to(dtype)
    entries = torch.empty(tuple(shape), dtype=dtype, device=generator.device)
    if kind == "rademacher":
        return entries.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    return entries.normal_(generator=generator)


def _student_t(shape: Sequence[int], generator: torch.Generator, df: float) -> Float[Tensor, "..."]:
    """√((ν − 2) (e^{2E/ν} − 1)) cos 2πU, E exponential, U uniform (Bailey 1994, Math. Comp. 62, 779).

    In float64 whatever is asked for: with the 24 random bits of float32 the tail of small ν would be cut off.
    """
    exponential, uniform = (torch.empty(tuple(shape), dtype=torch.float64, device=generator.device) for _ in range(2))
    exponential.exponential_(generator=generator)
    uniform.uniform_(generator=generator)
    radius = (exponential * (2 / df)).expm1().mul(df - 2).sqrt()
    return radius * torch.cos(2 * math.pi * uniform)
