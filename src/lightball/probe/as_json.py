"""Frozen dataclasses of numbers, text, arrays and each other, as JSON and back, exactly."""

from __future__ import annotations

import math
import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encoded(value: Any) -> Any:
    """Dictionaries, lists, numbers and text; numbers that are not finite become "inf", "-inf" and "nan"."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encoded(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return encoded(value.tolist())
    if isinstance(value, tuple | list):
        return [encoded(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return float(value) if isinstance(value, np.floating) else value


def decoded(kind: type[T], value: Any, where: str) -> T:
    """The dataclass ``kind`` from what :func:`encoded` made of it.

    Raises:
        ValueError: something is missing, unknown or of another type; the message names the place.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    hints = get_type_hints(kind, localns=_ARRAYS)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in names:
        if name not in value:
            raise ValueError(f"{where} has no {name!r}")
    for name in value:
        if name not in names:
            raise ValueError(f"{where} has an unknown {name!r}")
    return kind(**{name: _typed(hints[name], value[name], f"{where}.{name}") for name in names})


class _Shaped:
    """Stands in for jaxtyping's array types, which are imported for type checking only."""

    def __class_getitem__(cls, _: Any) -> type[np.ndarray]:
        return np.ndarray


_ARRAYS = {"Float64": _Shaped}


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(next(h for h in inner if h is not type(None)), value, where)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{where} is {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is not a list")
        each = inner[0] if inner[-1] is Ellipsis else None
        if each is None and len(value) != len(inner):
            raise ValueError(f"{where} has {len(value)} entries, not {len(inner)}")
        kinds = inner if each is None else [each] * len(value)
        return tuple(_typed(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if hint is np.ndarray:
        return _array(value, where)
    if hint is float:
        return _number(value, where)
    if is_dataclass(hint):
        return decoded(hint, value, where)  # type: ignore[arg-type]
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where} is {value!r:.40}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} is {value!r:.40}")
    return float(value)


def _array(value: Any, where: str) -> np.ndarray:
    """A matrix, the only arrays here."""
    if not (isinstance(value, list) and value and all(isinstance(row, list) for row in value)):
        raise ValueError(f"{where} is not a table of numbers")
    if len({len(row) for row in value}) != 1:
        raise ValueError(f"{where} has rows of different lengths")
    return np.array([[_number(v, where) for v in row] for row in value], dtype=np.float64)
