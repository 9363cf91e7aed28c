"""Learning rates times a factor: numbers, tensors and lists of them, and the keys that hold them in a group."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

GROUP_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
"""The keys of a group that hold a rate: SGD's own and those that torch's schedulers add."""


def scaled(value: Any, factor: float) -> Any:
    """value · factor, a new object; lists and tuples element by element, None stays.

    A product within rounding of a number of 14 digits is that number: 0.1/(1 − 0.9) is 1, and there and back gives
    what a person had typed.
    """
    if value is None or factor == 1.0:
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(scaled(each, factor) for each in value)
    if isinstance(value, Tensor):
        return value.detach() * factor
    product = float(value) * factor
    short = float(f"{product:.14g}")
    return short if abs(short - product) <= 1e-15 * abs(product) else product


def scale_group(group: MutableMapping[str, Any], factor: float) -> None:
    """Every rate in a group times the factor.

    A tensor is replaced, not written into: groups made with one tensor lr share it.
    """
    for key in GROUP_RATES:
        if key in group:
            group[key] = scaled(group[key], factor)


def scale_groups(optimizer: Optimizer, factors: Sequence[float]) -> None:
    """Every rate of every group times the group's factor."""
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        scale_group(group, factor)


def same(factors: Iterable[float]) -> bool:
    """Whether all groups have one factor, to rounding."""
    first, *others = factors
    return all(abs(other - first) <= 1e-12 * abs(first) for other in others)
