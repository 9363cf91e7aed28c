"""Finished chunks on disk: one Parquet file each, written to a temporary name and renamed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightball.errors import InputError
from lightball.studies.runs import Measure, Outcome, Run

FORMAT = 1
_MEASURES: tuple[Measure, ...] = ("train_loss", "validation_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Store:
    """A folder of finished chunks, found again by the key of the chunk.

    Args:
        folder: created if missing.
        about: what stands inside every file: task, settings, versions, device, command.
    """

    folder: Path
    about: Mapping[str, Any]

    def prepare(self) -> None:
        """Create the folder and make sure that it can be written to, before anything is computed.

        Raises:
            InputError: it cannot.
        """
        probe = self._chunks / f".write-test-{os.getpid()}"
        try:
            self._chunks.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the folder {str(self.folder)!r}: {error.strerror}; choose another with --out"
            ) from error

    def load(self, key: str) -> list[Outcome] | None:
        """The outcomes of a finished chunk, in order; None if it is not there.

        Raises:
            InputError: the file is damaged.
        """
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return [_outcome(row) for row in pq.read_table(path).to_pylist()]
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise InputError(f"the file {str(path)!r} is damaged ({error}): delete it and run again") from error

    def save(self, key: str, outcomes: Sequence[Outcome]) -> None:
        """Write a finished chunk; the final name appears only when the file is complete and flushed.

        Raises:
            InputError: it cannot be written, say because the disk is full; what was written before stays.
        """
        table = pa.Table.from_pylist([_row(outcome) for outcome in outcomes], schema=_SCHEMA)
        table = table.replace_schema_metadata({"lightball": json.dumps({"format": FORMAT, **self.about})})
        temporary = self._path(key).with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                pq.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path(key))
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise InputError(
                f"cannot write {str(self._path(key))!r}: {error.strerror}; make room and run the same command again"
            ) from error

    def save_json(self, name: str, value: object) -> None:
        """Write a JSON file beside the chunks, in one go."""
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.folder / name)

    @property
    def _chunks(self) -> Path:
        return self.folder / "chunks"

    def _path(self, key: str) -> Path:
        return self._chunks / f"{key}.parquet"


_SCHEMA = pa.schema(
    [
        ("batch_size", pa.int64()),
        ("effective_lr", pa.float64()),
        ("seed", pa.int64()),
        ("momentum", pa.float64()),
        ("failed", pa.bool_()),
        ("failed_at", pa.int64()),
        *[(f"{when}_{measure}", pa.float64()) for when in ("untrained", "final") for measure in _MEASURES],
        ("curve", pa.list_(pa.float64())),
    ]
)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        **asdict(outcome.run),
        "failed": outcome.failed,
        "failed_at": outcome.failed_at,
        **{f"untrained_{name}": value for name, value in outcome.untrained.items()},
        **{f"final_{name}": value for name, value in outcome.final.items()},
        "curve": list(outcome.curve),
    }


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(
        run=Run(row["batch_size"], row["effective_lr"], row["seed"], row["momentum"]),
        curve=tuple(row["curve"]),
        untrained={name: row[f"untrained_{name}"] for name in _MEASURES},
        final={name: row[f"final_{name}"] for name in _MEASURES},
        failed_at=row["failed_at"],
    )
