"""Files that are either whole or not there, and that tell when a bit of them has changed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightball.errors import InputError, reason_of

FORMAT = 2
STALE_SECONDS = 3600.0  # a temporary file of this age belongs to no process that still runs
_NO_DIGEST = "0" * 16
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True)
class Damage:
    """A file that is not believed; ``name`` is its path below the folder of the study."""

    name: str
    reason: str


class DamagedError(Exception):
    """Why the bytes of a file are not believed."""


def digest_of(data: bytes) -> str:
    """16 hexadecimal digits that stand for these bytes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def write(path: Path, data: bytes) -> None:
    """Write a file so that, whatever happens, its name holds all of it or what was there before.

    Raises:
        InputError: it cannot be written, say because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make sure that a new name in a folder outlives a loss of power; a rename alone does not."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> InputError:
    remedy = "make room" if error.errno in _FULL else "make it writable"
    return InputError(f"cannot write {str(path)!r}: {reason_for(error)}; {remedy} and run the same command again")


def cannot_read(path: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot read {str(path)!r}: {reason_for(error)}; make it readable or move it away, "
        "and run the same command again"
    )


def reason_for(error: OSError) -> str:
    """The reason without the number and the path that stand in the message."""
    return error.strerror or reason_of(error)


def sealed(value: Mapping[str, Any], indent: int | None = 1) -> bytes:
    """A JSON object as text; its last entry is the digest of the whole text, with zeros for the digest itself."""
    if "digest" in value:
        raise ValueError("the entry 'digest' is taken by the digest of the whole text")
    text = json.dumps({**value, "digest": _NO_DIGEST}, indent=indent).encode() + b"\n"
    at = _place_of_digest(text)
    return text[:at] + digest_of(text).encode() + text[at + 16 :]


def unsealed(data: bytes) -> dict[str, Any]:
    """The object without its digest, which is compared before anything is parsed.

    Raises:
        DamagedError: this is not what was written.
    """
    if not data:
        raise DamagedError("it is empty")
    at = _place_of_digest(data)
    if data[at : at + 16] != digest_of(data[:at] + _NO_DIGEST.encode() + data[at + 16 :]).encode():
        raise DamagedError("its content does not match its digest")
    try:
        value = dict(json.loads(data))
        del value["digest"]
    except Exception as error:
        raise DamagedError(f"it is no JSON object ({reason_of(error)})") from error
    return value


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is no such file.

    Raises:
        DamagedError: it is not what was written.
        InputError: it cannot be read, which is no damage.
    """
    try:
        return unsealed(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError as error:
        raise DamagedError("it is a folder") from error
    except OSError as error:
        raise cannot_read(path, error) from error


def _place_of_digest(text: bytes) -> int:
    key = b'"digest": "'
    return text.rfind(key) + len(key)


def set_aside(folder: Path, name: str) -> None:
    """Move a file into ``damaged/``; it may be gone already, by another process that found it.

    Raises:
        InputError: it cannot be moved.
    """
    target = folder / "damaged" / Path(name).name
    try:
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        (folder / name).replace(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"cannot set the damaged file {str(folder / name)!r} aside: {reason_for(error)}; "
            "move it away and run the same command again"
        ) from error


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what processes that were killed had begun to write."""
    for folder in folders:
        now = clock(folder)
        for path in folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if abs(now - path.stat().st_mtime) > STALE_SECONDS:
                    path.unlink()


def clock(folder: Path) -> float:
    """The time by the clock of the file system, which all machines that share it see; ours if it cannot be told."""
    probe = folder / f".clock.{secrets.token_hex(8)}.tmp"
    try:
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()
    except OSError:
        return time.time()


def tick(folder: Path) -> float:
    """A time after that of all files in the folder, by the same clock; waits for its next step, milliseconds mostly."""
    first = clock(folder)
    while (now := clock(folder)) == first:
        time.sleep(0.001)
    return now
