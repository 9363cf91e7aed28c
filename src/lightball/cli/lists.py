"""Comma-separated lists, here and in every command: --batch-sizes 8,32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class _List(click.ParamType):  # type: ignore[type-arg]  # click < 8.3 has no arguments there
    kind: Callable[[str], Any]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of {self.name}: separate them by commas, without spaces", param, ctx)


class Ints(_List):
    name = "whole numbers"
    kind = int


class Floats(_List):
    name = "numbers"
    kind = float
