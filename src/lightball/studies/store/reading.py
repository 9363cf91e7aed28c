"""Reading many finished chunks at once: every byte is checked every time, but parsed only once.

Parsing 10,000 small files takes seconds. ``index.DIGEST.parquet`` therefore keeps the rows of many files by file name.
A name contains the digest of the file's bytes, and the bytes are compared with it whenever they are read, so that a
kept row equals what parsing would give. An index that is missing, damaged or of another study is only made anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lightball.errors import InputError
from lightball.studies.store.chunk_file import (
    METADATA,
    SCHEMA,
    NewerFormatError,
    check,
    decode,
    from_bytes,
    key_in,
    to_bytes,
)
from lightball.studies.store.disk import FORMAT, Damage, DamagedError, cannot_read, digest_of, write

MANY = 200  # files from which an index pays
_ROWS = SCHEMA.append(pa.field("file", pa.string()))
_BATCH = 500  # tables that are joined at once


@dataclass(frozen=True)
class Found:
    """What a folder holds: the rows of its chunks, each with the name of its file, and what is not believed."""

    rows: pa.Table
    damaged: tuple[Damage, ...]

    @property
    def keys(self) -> list[str]:
        """The key of each row's chunk."""
        return [_stem(name) for name in self.rows["file"].to_pylist()]


def read(folder: Path, study: str, wanted: Container[str] | None = None) -> Found:
    """The finished chunks of a study, all of them or those of the wanted keys; nothing is moved.

    Of several files for one key the one that was written first holds, if it can be believed. What has no name of a
    chunk is damage where all chunks are asked for.

    Raises:
        InputError: a newer version wrote one of them, or one cannot be read, which is no damage.
    """
    there = [name for name in _listed(folder) if not name.startswith(".")]
    names = _in_order(folder, there if wanted is None else [n for n in there if _stem(n) in wanted and key_in(n)])
    index = _read_index(folder, study) if len(names) > MANY else _ROWS.empty_table()
    indexed = set(index["file"].to_pylist())
    good: dict[str, str] = {}
    damaged: list[Damage] = []
    fresh = _Fresh()
    for name in names:
        try:
            data = _bytes(folder / "chunks" / name)
            key = check(name, data)
            if key not in good and name not in indexed:
                fresh.add(name, decode(name, data, study))
            good.setdefault(key, name)
        except FileNotFoundError:
            continue  # another process has removed it or set it aside
        except DamagedError as error:
            damaged.append(Damage(f"chunks/{name}", str(error)))
        except NewerFormatError as error:
            raise newer(folder, error.args[0]) from error
    if fresh.num_files > MANY:
        _write_index(folder, study, pa.concat_tables([_of_files(index, there), fresh.rows()]))
    return Found(pa.concat_tables([_of_files(index, good.values()), fresh.rows()]), tuple(damaged))


class _Fresh:
    """Rows that were parsed, joined now and then: a table of one row is many times as large as its row."""

    def __init__(self) -> None:
        self.num_files = 0
        self._joined = [_ROWS.empty_table()]
        self._tables: list[pa.Table] = []
        self._names: list[str] = []

    def add(self, name: str, table: pa.Table) -> None:
        self.num_files += 1
        self._tables.append(table)
        self._names += [name] * table.num_rows
        if len(self._tables) == _BATCH:
            self._join()

    def rows(self) -> pa.Table:
        self._join()
        return pa.concat_tables(self._joined)

    def _join(self) -> None:
        if self._tables:
            table = pa.concat_tables(self._tables).combine_chunks().replace_schema_metadata(None)
            self._joined.append(table.append_column(_ROWS.field("file"), pa.array(self._names, pa.string())))
            self._tables, self._names = [], []


def names_of(folder: Path, key: str) -> list[str]:
    """The files for a key, the one that holds first if it can be believed.

    Raises:
        InputError: the folder cannot be read.
    """
    prefix = f"{key}."
    names = [name for name in _listed(folder) if name.startswith(prefix)]
    return _in_order(folder, [name for name in names if key_in(name) == key])


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder / "chunks")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read(folder / "chunks", error) from error


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _in_order(folder: Path, names: list[str]) -> list[str]:
    """By key; several files for one by when they were written, then by name."""
    count = Counter(map(_stem, names))
    if len(count) == len(names):
        return sorted(names)
    written = {name: _written(folder / "chunks" / name) for name in names if count[_stem(name)] > 1}
    return sorted(names, key=lambda name: (_stem(name), written.get(name, 0), name))


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0  # gone in the meantime


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise DamagedError("it is a folder") from error
    except OSError as error:
        raise cannot_read(path, error) from error


def newer(folder: Path, format: int) -> InputError:
    return InputError(
        f"the folder {str(folder)!r} was written by a newer lightball (format {format}, this one reads {FORMAT}): "
        "upgrade lightball, or choose another folder with --out"
    )


def _of_files(rows: pa.Table, files: Iterable[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows["file"], pa.array(list(files), pa.string())))


def _read_index(folder: Path, study: str) -> pa.Table:
    for path in folder.glob("index.*.parquet"):
        with contextlib.suppress(Exception):  # an index of any kind of damage is none
            data = path.read_bytes()
            check(path.name, data)
            table = from_bytes(data)
            facts = json.loads(table.schema.metadata[METADATA])
            if table.schema.equals(_ROWS) and facts == {"format": FORMAT, "study": study}:
                return table.replace_schema_metadata(None)
    return _ROWS.empty_table()


def _write_index(folder: Path, study: str, rows: pa.Table) -> None:
    with contextlib.suppress(OSError, InputError):  # the next one will do
        old = list(folder.glob("index.*.parquet"))
        facts = {METADATA: json.dumps({"format": FORMAT, "study": study})}
        data = to_bytes(rows.combine_chunks().replace_schema_metadata(facts))
        path = folder / f"index.{digest_of(data)}.parquet"
        write(path, data)
        for other in old:
            if other != path:
                other.unlink()
