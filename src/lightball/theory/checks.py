"""Checks that several experiments share."""

from __future__ import annotations

from collections.abc import Sequence

from lightball.errors import InputError


def check_momenta(momenta: Sequence[float]) -> None:
    """Refuse values of β outside [0, 1), none at all, and one given twice. Raises `InputError`."""
    for momentum in momenta:
        if not 0 <= momentum < 1:
            raise InputError(f"momentum is {momentum:g}; required is 0 ≤ momentum < 1: try 0.9")
    if not momenta or len(set(momenta)) < len(momenta):
        raise InputError(f"momenta are {list(momenta)}; required is one or more, each once")
