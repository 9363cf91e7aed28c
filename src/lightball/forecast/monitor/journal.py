"""Records on disk: a file of JSON lines that is only ever added to, and can be read at any time.

A line ``{"start": step, …}`` stands where a monitor began; records of a training that was killed and went on from a
checkpoint before them are left behind by it, and all of them by a training that begins at step 0.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightball.errors import InputError, reason_of
from lightball.forecast.monitor.record import Record
from lightball.version import __version__

_logger = logging.getLogger("lightball")


class Journal:
    """Lines at the end of a file; every one is with the operating system when its method returns.

    What a killed process or a full disk left of a line is closed before the next one.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def begin(self, step: int, about: Mapping[str, Any]) -> None:
        """Tell that a training goes on from ``step``; a file that holds other things is refused, and left as it is."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_file():
                _entries(self.path)
        except OSError as error:
            raise self._refusal(error) from error
        self._add(json.dumps({"start": step, "lightball": __version__, **about}) + "\n")

    def write(self, record: Record) -> None:
        """Add a record."""
        self._add(json.dumps(record.to_json(), allow_nan=False) + "\n")

    def _add(self, text: str) -> None:
        try:
            torn = self.path.exists() and not _ends_with_newline(self.path)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + text if torn else text)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> InputError:
        reason = error.strerror or reason_of(error)
        return InputError(f"cannot write the monitor's records to {str(self.path)!r}: {reason}; choose another path")


def read_monitor(path: str | os.PathLike[str]) -> tuple[Record, ...]:
    """The records of the training in a monitor's file, by step; also while it goes on, or after it was killed.

    Lines that a full disk or a killed process left damaged are skipped; a warning of the logger ``lightball`` says how
    many, other than an unfinished one at the end.

    Raises:
        InputError: no such file, or nothing in it is a record.
    """
    try:
        entries, damaged = _entries(Path(path))
    except OSError as error:
        reason = error.strerror or reason_of(error)
        raise InputError(f"cannot read the monitor's records in {str(path)!r}: {reason}") from error
    if damaged:
        lines = ", ".join(map(str, damaged[:5])) + (" …" if len(damaged) > 5 else "")
        _logger.warning("skipped %d damaged line(s) of %r: %s", len(damaged), str(path), lines)
    records: list[Record] = []
    for entry in entries:
        if isinstance(entry, Record):
            records.append(entry)
        else:
            records = [record for record in records if 0 < record.step <= entry]
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


def _entries(path: Path) -> tuple[list[Record | int], list[int]]:
    """Records, and steps that trainings began at, in the file's order; and the numbers of damaged lines."""
    *lines, unfinished = path.read_bytes().split(b"\n")
    entries: list[Record | int] = []
    damaged = []
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                entries.append(_entry(line))
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
            damaged.append(number)
    if unfinished:  # all of it but the newline may be there
        with suppress(TypeError, ValueError, KeyError, AttributeError, RecursionError):
            entries.append(_entry(unfinished))
    if damaged and not entries:
        raise InputError(
            f"no line of {str(path)!r} is a record of a monitor: give the file that Monitor(path=…) writes, or the "
            "path of a new one"
        )
    return entries, damaged


def _entry(line: bytes) -> Record | int:
    values = json.loads(line)
    return int(values["start"]) if "start" in values else Record.from_json(values)
