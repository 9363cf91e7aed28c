"""Whether a simulation agrees with what is exact."""

from __future__ import annotations

_LEAST = 0.8  # of 95 % intervals; those of one run hold or miss together


def agreement(near: int, total: int, what: str) -> str:
    """The end of a sentence about a simulation: in how many places its 95 % intervals hold ``what``."""
    verdict = "agrees" if near >= _LEAST * total else "does not agree"
    return f"{verdict}: {near} of {total} of its 95 % intervals hold {what}."
