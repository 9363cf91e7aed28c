"""One line for everything that keeps a run from writing its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lightball.errors import InputError, reason_of


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Around the writing of ``what`` to ``path``, and nothing else.

    Raises:
        InputError: it cannot be written: the disk is full, something is in the way, no permission.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise InputError(
            f"cannot write {what} {str(path)!r}: {reason}; make room, or move what is in the way, and train again with "
            "the same folder to go on"
        ) from error
