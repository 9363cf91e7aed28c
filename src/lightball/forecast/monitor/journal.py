"""Records on disk: a file of JSON lines that is only ever added to, and can be read at any time.

A line ``{"start": step, …}`` stands where a monitor began; records of a training that was killed and went on from a
checkpoint before them are left behind by it, and all of them by a training that begins at step 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightball.errors import InputError, reason_of
from lightball.forecast.monitor.record import Record
from lightball.version import __version__


class Journal:
    """Lines at the end of a file; every one is with the operating system when its method returns.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def begin(self, step: int, about: Mapping[str, Any]) -> None:
        """Tell that a training goes on from ``step``. What a killed process left of a line is closed first."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torn = self.path.exists() and not _ends_with_newline(self.path)
        except OSError as error:
            raise self._refusal(error) from error
        self._add(("\n" if torn else "") + json.dumps({"start": step, "lightball": __version__, **about}) + "\n")

    def write(self, record: Record) -> None:
        """Add a record."""
        self._add(json.dumps(record.to_json(), allow_nan=False) + "\n")

    def _add(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> InputError:
        reason = error.strerror or reason_of(error)
        return InputError(f"cannot write the monitor's records to {str(self.path)!r}: {reason}; choose another path")


def read_monitor(path: str | os.PathLike[str]) -> tuple[Record, ...]:
    """The records of the training in a monitor's file, by step; also while it goes on, or after it was killed.

    Raises:
        InputError: no such file, or a line that is no record, other than one that a killed process left unfinished.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        reason = error.strerror or reason_of(error)
        raise InputError(f"cannot read the monitor's records in {str(path)!r}: {reason}") from error
    records: list[Record] = []
    for number, line in enumerate(lines):
        if not line:
            continue
        value = _value(line)
        if value is None:
            following = _value(lines[number + 1]) if number + 1 < len(lines) else None
            if number + 1 == len(lines) or (isinstance(following, dict) and "start" in following):
                continue  # a process was killed in the middle of it
            raise _damaged(path, number)
        if isinstance(value, dict) and "start" in value:
            records = [record for record in records if 0 < record.step <= value["start"]]
            continue
        try:
            records.append(Record.from_json(value))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise _damaged(path, number) from error
    return tuple(records)


def tensorboard_log(folder: str | os.PathLike[str]) -> Callable[[dict[str, float], int], None]:
    """A callable for ``Monitor(log=…)`` that writes scalars ``lightball/…`` for TensorBoard, flushed at once.

    Raises:
        InputError: TensorBoard is not installed, or the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard is given, but TensorBoard is not installed: pip install lightball[tensorboard]"
        ) from error
    try:
        writer = SummaryWriter(str(folder))
    except OSError as error:
        reason = error.strerror or reason_of(error)
        raise InputError(f"cannot write TensorBoard's events to {str(folder)!r}: {reason}") from error

    def log(scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            writer.add_scalar(f"lightball/{name}", value, step)
        writer.flush()

    return log


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _damaged(path: str | os.PathLike[str], number: int) -> InputError:
    return InputError(
        f"line {number + 1} of {str(path)!r} is no record of a monitor: give the file that Monitor(path=…) writes, or "
        "remove the line"
    )
