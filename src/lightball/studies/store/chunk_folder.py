"""Finished chunks in ``chunks/``: one file holds for each, whoever computes it again, until it is discarded."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lightball.studies.runs import Outcome
from lightball.studies.store.chunk_file import decode, file_name, outcomes_in
from lightball.studies.store.disk import cannot_write, write
from lightball.studies.store.reading import names_of, read


def put(folder: Path, study: str, key: str, data: bytes) -> tuple[bool, list[Outcome]]:
    """Write a chunk's file where none can be believed; whether it holds, and the outcomes that do.

    To be called by one process at a time for each key. Where two do nevertheless, because one of them was stopped for
    so long that it was believed dead, the file that was written first holds, and the other is removed by its writer.

    Raises:
        InputError: it cannot be written.
    """
    there = _holding(folder, study, key)
    if there is not None:
        return False, there[1]
    name = file_name(key, data)
    write(folder / "chunks" / name, data)
    if names_of(folder, key) != [name]:
        there = _holding(folder, study, key)
    if there is None or there[0] == name:
        return True, outcomes_in(decode(name, data, study))
    with contextlib.suppress(OSError):
        (folder / "chunks" / name).unlink()
    return False, there[1]


def remove(folder: Path, key: str, before: float) -> bool:
    """Remove the files for a key that were written before a time; whether none is left.

    Raises:
        InputError: one cannot be removed.
    """
    for name in names_of(folder, key):
        path = folder / "chunks" / name
        try:
            if path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise cannot_write(path, error) from error
    return not names_of(folder, key)


def _holding(folder: Path, study: str, key: str) -> tuple[str, list[Outcome]] | None:
    """The file that holds for a key and its outcomes; None if there is none that can be believed."""
    if not names_of(folder, key):
        return None
    found = read(folder, study, {key})
    return (found.rows["file"][0].as_py(), outcomes_in(found.rows)) if found.rows.num_rows else None
