"""What a script printed, as an outcome.

    {"train_loss": 0.012, "test_accuracy": 0.97}

Required is ``train_loss``, over all training examples at the end; NaN, Infinity or null mean that the run diverged.
Optional are ``validation_accuracy``, ``test_accuracy``, the three with ``untrained_`` before them, ``curve`` (the
training loss before training and after each epoch) and ``failed_at`` (the step). What else is printed does not matter.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from lightball.studies.runs import MEASURES, Measure, Outcome, Run

TAIL_BYTES = 2**20  # of the output; the result must stand in it


class ScriptError(Exception):
    """Why a script gave no result."""


def read_outcome(run: Run, result: dict[str, Any]) -> Outcome:
    """The outcome that a script's JSON object tells; what it leaves out is NaN.

    Raises:
        ScriptError: something other than a number where one belongs.
    """
    curve = result.get("curve")
    if not isinstance(curve, list | None):
        raise ScriptError(f"curve is {_shown(curve)}, but must be a list of numbers")
    losses = tuple(_number("a value of curve", value) for value in curve or ())
    final: dict[Measure, float] = {measure: _number(measure, result.get(measure)) for measure in MEASURES}
    untrained: dict[Measure, float] = {
        measure: _number(f"untrained_{measure}", result.get(f"untrained_{measure}")) for measure in MEASURES
    }
    if losses and "untrained_train_loss" not in result:
        untrained["train_loss"] = losses[0]
    step = result.get("failed_at")
    if step is not None and not (isinstance(step, float) and step.is_integer() and 0 <= step < 2**63):
        raise ScriptError(f"failed_at is {_shown(step)}, but must be the whole number of a step")
    return Outcome(run, losses, untrained, final, None if step is None else int(step))


def as_result(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, parse_int=float)  # with int, a thousand digits would be an error
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "train_loss" in value else None


def _number(name: str, value: object) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, float):
        raise ScriptError(f"{name} is {_shown(value)}, but must be a number")
    return value


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def tail(log: Path, start: int) -> str:
    """The end of what stands in the log from byte ``start`` on."""
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(start, size - TAIL_BYTES))
        return stream.read(TAIL_BYTES).decode(errors="replace")


def lines(text: str) -> list[str]:
    """Those that are not empty; a progress bar ends its lines by carriage returns."""
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def excerpt(text: str) -> str:
    """The last five lines in one, of at most 500 characters, without what would steer a terminal; of a traceback of
    Python the last line, which says it all in one."""
    last = lines(text)[-100:]
    shown = last[-1:] if any(line.startswith("Traceback (most recent call last)") for line in last) else last[-5:]
    plain = ("".join(c if c.isprintable() else " " for c in line[-500:]).strip() for line in shown)
    return " | ".join(plain)[-500:]
