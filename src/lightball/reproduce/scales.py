"""From a laptop's smoke test to the paper's scale: presets, and options that win over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from lightball.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Chosen = TypeVar("Chosen", bound=DataclassInstance)

Scale = Literal["smoke", "cpu", "gpu", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


def preset(presets: Mapping[Scale, Chosen], scale: Scale, **options: Any) -> Chosen:
    """The settings of a scale, with the options that are given; None means not given.

    Raises:
        InputError: no such scale, or whatever the settings refuse.
    """
    if scale not in presets:
        raise InputError(f"scale is {scale!r}, but must be one of {', '.join(presets)}")
    return replace(presets[scale], **{name: value for name, value in options.items() if value is not None})
