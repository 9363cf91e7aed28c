"""Momenta that change along a run, written as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64

VALID_SPECS = "constant:0.9, restarts:20, cycle:20:0.5,0.9 or linear:0.5,0.95"


def momenta(spec: str, num_steps: int) -> Float64[np.ndarray, " num_steps"]:
    """β at each step.

    - "constant:0.9";
    - "restarts:20": Nesterov's j/(j + 3) for j = 0, 1, …, begun again every 20 steps (scheduled restarts,
      arXiv:2002.10583);
    - "cycle:20:0.5,0.9": 0.5 for 10 steps, 0.9 for 10, and so on;
    - "linear:0.5,0.95": a straight line from the first step to the last.

    The second and third change as fast as the buffer forgets, at any learning rate; the last ever more slowly.

    Raises:
        InputError: the text is none of these, or a momentum is not in [0, 1).
    """
    kind, *arguments = spec.split(":")
    step = np.arange(num_steps)
    match kind, arguments:
        case "constant", [value]:
            (only,) = _numbers(spec, value, 1)
            return np.full(num_steps, only)
        case "restarts", [period]:
            since = step % _period(spec, period)
            return np.asarray(since / (since + 3))
        case "cycle", [period, values]:
            first, second = _numbers(spec, values, 2)
            length = _period(spec, period)
            return np.where(step % length < length / 2, first, second)
        case "linear", [values]:
            first, last = _numbers(spec, values, 2)
            return np.linspace(first, last, num_steps)
    raise _unknown(spec)


def _numbers(spec: str, text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise _unknown(spec) from None
    if len(values) != count:
        raise _unknown(spec)
    for value in values:
        if not 0 <= value < 1:
            raise InputError(f"momentum '{spec}' has the value {value:g}; required is 0 ≤ β < 1")
    return values


def _period(spec: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise InputError(f"momentum '{spec}' has the period {text!r}; required is a whole number of steps ≥ 2")
    return int(text)


def _unknown(spec: str) -> InputError:
    return InputError(f"unknown momentum '{spec}'; valid are {VALID_SPECS}")
