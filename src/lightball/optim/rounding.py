"""Weights in bfloat16 or float16 without a float32 copy, so that updates below half a unit in the last place count.

Either the step is computed in float32 and rounded up or down by chance, right on average (`stochastic`), or a
second tensor in the weights' dtype holds the part of each weight that does not fit into it (`kahan`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

Write = Callable[[Tensor, Tensor, Tensor | None], None]

_DROPPED_BITS = {torch.bfloat16: 16, torch.float16: 13}  # of float32's significand
_FLOAT16_SMALLEST_NORMAL = 2.0**-14
_FLOAT16_QUANTUM_BELOW = 2.0**-24


def is_rounded(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether p's steps are computed in float32 and rounded: in bfloat16 and float16, unless it is to nearest."""
    return group["rounding"] != "nearest" and p.dtype in _DROPPED_BITS


def writer(p: Tensor, state: MutableMapping[str, Any], group: Mapping[str, Any]) -> tuple[Write, Tensor | None]:
    """The function (value in float32, where to, its compensation) that writes a step back, and p's compensation.

    "stochastic" takes the seed from p's state and leaves the next one there, so that a parameter's stream depends
    neither on the others nor on their order, and goes on where a saved state ended.
    """
    if group["rounding"] == "kahan":
        if "compensation" not in state:
            state["compensation"] = torch.zeros_like(p)
        return _write_nearest, state["compensation"]
    generator = torch.Generator(p.device)
    generator.manual_seed(state.setdefault("rounding_seed", group["seed"]))
    state["rounding_seed"] = next_seed(state["rounding_seed"])

    def write(exact: Tensor, to: Tensor, rest: Tensor | None) -> None:
        to.copy_(round_stochastically(exact, to.dtype, generator))

    return write, None


def _write_nearest(exact: Tensor, to: Tensor, rest: Tensor | None) -> None:
    to.copy_(exact)
    if rest is not None:
        rest.copy_(exact - to)


def round_stochastically(x: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """x in float32 rounded to one of its two neighbours in dtype, with chances that make E[rounded] = x.

    Exact for finite x inside dtype's range; a value that dtype holds stays as it is. NaN stays NaN, and infinities
    become NaN. Temporaries: three of x's size. The generator is of x's device.
    """
    dropped = _DROPPED_BITS[dtype]
    chance = _random_bits(x, dropped, generator)
    # added to the bits of the magnitude, it carries into the bits that are kept as often as their remainder says
    rounded = (x.view(torch.int32) + chance).bitwise_and_(-(1 << dropped)).view(torch.float32)
    if dtype is torch.float16:
        # here float16 has a fixed spacing, and fewer bits than the carry above assumes
        steps = (x / _FLOAT16_QUANTUM_BELOW + chance / (1 << dropped)).floor_()
        rounded = torch.where(x.abs() < _FLOAT16_SMALLEST_NORMAL, steps * _FLOAT16_QUANTUM_BELOW, rounded)
    return rounded.add_(x - x).to(dtype)  # 0, or NaN: a carry can turn the bits of a NaN into those of a number


def _random_bits(x: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """Integers from 0 to 2^bits − 1, at most 16 bits, in the shape of x: four from every draw of 64 bits."""
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    sixteen = draws.random_(-(2**63), None, generator=generator).view(torch.int16)[: x.numel()]
    return sixteen.to(torch.int32).bitwise_and_((1 << bits) - 1).view(x.shape)


def next_seed(seed: int) -> int:
    """The seed after this one, by the generator SplitMix64; every seed is used for one tensor in one step."""
    mask = (1 << 64) - 1
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1  # torch's generators take 63 bits
