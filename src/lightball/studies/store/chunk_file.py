"""A finished chunk as the bytes of one Parquet file, ``KEY.DIGEST.parquet``, one row a run."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightball.errors import reason_of
from lightball.studies.runs import MEASURES, Chunk, Outcome, Run
from lightball.studies.store.disk import FORMAT, DamagedError, digest_of

METADATA = b"lightball"
SCHEMA = pa.schema(
    [
        ("batch_size", pa.int64()),
        ("effective_lr", pa.float64()),
        ("momentum", pa.float64()),
        ("phase", pa.string()),
        ("seed", pa.int64()),
        ("failed", pa.bool_()),
        ("failed_at", pa.int64()),
        ("error", pa.string()),
        *[(f"{when}_{measure}", pa.float64()) for when in ("untrained", "final") for measure in MEASURES],
        ("curve", pa.list_(pa.float64())),
    ]
)
_NAME = re.compile(r"([\w-]+)\.([0-9a-f]{16})\.parquet")


class NewerFormatError(Exception):
    """A file of a later format than ours, with its number."""


def file_name(key: str, data: bytes) -> str:
    return f"{key}.{digest_of(data)}.parquet"


def key_in(name: str) -> str | None:
    """The key in the name of a chunk's file; None if this is no such name."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def encode(key: str, chunk: Chunk, outcomes: Sequence[Outcome], study: str, about: Mapping[str, Any]) -> bytes:
    """The file of a chunk; ``study`` is the hash of the study that it belongs to."""
    if tuple(outcome.run for outcome in outcomes) != chunk.runs:
        raise ValueError("the outcomes are not those of the chunk's runs, in their order")
    composition = {"phase": chunk.phase, "width": chunk.width, "compiled": chunk.compiled, "runs": len(chunk.runs)}
    facts = {"format": FORMAT, "key": key, "study": study, **composition, "about": about}
    table = pa.Table.from_pylist([_row(outcome, chunk) for outcome in outcomes], schema=SCHEMA)
    return to_bytes(table.replace_schema_metadata({METADATA: json.dumps(facts)}))


def check(name: str, data: bytes) -> str:
    """The key of a chunk's file whose bytes are those that were written.

    Raises:
        DamagedError: they are not.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DamagedError("its name is not KEY.DIGEST.parquet")
    if match[2] != digest_of(data):
        raise DamagedError("its bytes do not match the digest in its name" if data else "it is empty")
    return match[1]


def decode(name: str, data: bytes, study: str) -> pa.Table:
    """The rows of a chunk's file; its bytes are compared with its name before anything is parsed.

    Raises:
        DamagedError: this is not the finished chunk of the study that its name promises.
        NewerFormatError: a later version wrote it.
    """
    key = check(name, data)
    try:
        table = from_bytes(data)
        facts = json.loads(table.schema.metadata[METADATA])
        if facts["format"] > FORMAT:
            raise NewerFormatError(facts["format"])
        _require(facts["format"] == FORMAT, f"its format is {facts['format']}")
        _require(facts["study"] == study, "it belongs to another study")
        _require(facts["key"] == key, f"it holds the chunk {facts['key']}")
        _require(table.schema.equals(SCHEMA), "its columns are not those of a chunk")
        _require(table.num_rows > 0, "it holds no runs")
        _require(table.num_rows == facts["runs"], f"it holds {table.num_rows} runs of {facts['runs']}")
    except (DamagedError, NewerFormatError):
        raise
    except Exception as error:  # whatever a parser makes of bytes that nobody wrote
        raise DamagedError(f"it is no chunk ({type(error).__name__}: {reason_of(error)})") from error
    return table


def outcomes_in(table: pa.Table) -> list[Outcome]:
    """The outcomes in the rows of chunks, in their order."""
    return [_outcome(row) for row in table.to_pylist()]


def to_bytes(table: pa.Table) -> bytes:
    """As plain Parquet: what is small reads faster without dictionaries, statistics and compression."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, use_dictionary=False, write_statistics=False, compression="none")
    return buffer.getvalue()


def from_bytes(data: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise DamagedError(reason)


def _row(outcome: Outcome, chunk: Chunk) -> dict[str, Any]:
    error = outcome.error
    return {
        **asdict(outcome.run),
        "phase": chunk.phase,
        "failed": outcome.failed,
        "failed_at": outcome.failed_at,
        # A script may write what is no text; Parquet holds nothing else.
        "error": None if error is None else error.encode("utf-8", "backslashreplace").decode(),
        **{f"untrained_{name}": value for name, value in outcome.untrained.items()},
        **{f"final_{name}": value for name, value in outcome.final.items()},
        "curve": list(outcome.curve),
    }


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(
        run=Run(row["batch_size"], row["effective_lr"], row["seed"], row["momentum"]),
        curve=tuple(row["curve"]),
        untrained={name: row[f"untrained_{name}"] for name in MEASURES},
        final={name: row[f"final_{name}"] for name in MEASURES},
        failed_at=row["failed_at"],
        error=row["error"],
    )
