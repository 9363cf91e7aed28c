"""``study.json``: which study a folder holds, and which runs share a chunk in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightball.errors import InputError
from lightball.studies.runs import hash_of
from lightball.studies.store.disk import FORMAT, Damage, DamagedError, read_sealed, sealed, write
from lightball.studies.store.reading import newer

NAME = "study.json"
COPY = "study.copy.json"  # without the compositions nothing that is finished could be found again
_SHOWN = 3
_LONGEST = 24
_CHANGED = {"source": "the code of the task has changed", "fingerprint": "what the task computes has changed"}


def new(study: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "study": as_json(study),
        "compositions": {},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": about.get("command"),
        "versions": about.get("versions"),
    }


def read(folder: Path, name: str = NAME) -> dict[str, Any] | None:
    """The content of the file, compositions by batch size; None if there is none.

    Raises:
        DamagedError: it is not what was written.
        InputError: a newer version wrote it.
    """
    value = read_sealed(folder / name)
    if value is None:
        return None
    number = value.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise newer(folder, number)
    if number != FORMAT or not all(isinstance(value.get(key), dict) for key in ("study", "compositions")):
        raise DamagedError("it describes no study")
    return {**value, "compositions": {int(size): c for size, c in value["compositions"].items()}}


def read_copy(folder: Path) -> dict[str, Any] | None:
    """The content of the copy; None if there is none that can be believed."""
    try:
        return read(folder, COPY)
    except DamagedError:
        return None


def store(folder: Path, value: Mapping[str, Any]) -> None:
    for name in (NAME, COPY):
        write(folder / name, sealed(value))


def find(folder: Path) -> tuple[dict[str, Any], list[Damage]]:
    """The study in a folder, for those who only read, and whether its file is damaged.

    Raises:
        InputError: there is none.
    """
    if not folder.exists():
        raise InputError(f"there is no folder {str(folder)!r}: give the folder of a study")
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file, but must be the folder of a study")
    try:
        value = read(folder)
    except DamagedError as error:
        value = read_copy(folder)
        if value is None:
            raise InputError(
                f"the file {str(folder / NAME)!r} is damaged ({error}): run the command of the study again, "
                "which writes it anew"
            ) from error
        return value, [Damage(NAME, str(error))]
    if value is None:
        raise InputError(f"the folder {str(folder)!r} holds no study: it has no {NAME}; give the folder of a study")
    return value, []


def require_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse the folder of another study.

    Raises:
        InputError: it is one; the line names the settings that differ.
    """
    here = as_json(here)
    if hash_of(there) == hash_of(here):
        return
    old, new = _flat(there), _flat(here)
    names = [name for name in {**new, **old} if name not in old or name not in new or old[name] != new[name]]
    shown = [_difference(name, old.get(name), new.get(name)) for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        shown.append(f"{len(names) - _SHOWN} more")
    raise InputError(
        f"the folder {str(folder)!r} holds another study ({'; '.join(shown)}): choose another folder with --out"
    )


def as_json(value: Any) -> Any:
    """A value as it comes back from JSON, with lists for tuples and texts for the keys."""
    return json.loads(json.dumps(value))


def _flat(value: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """The values below a mapping, as text, by their paths."""
    flat: dict[tuple[str, ...], str] = {}
    for key, below in value.items():
        if isinstance(below, Mapping) and below:
            flat |= _flat(below, (*above, key))
        else:
            flat[*above, key] = below if isinstance(below, str) else json.dumps(below)
    return flat


def _difference(path: tuple[str, ...], there: str | None, here: str | None) -> str:
    *above, name = path
    if there is not None and here is not None and (above == ["files"] or name in _CHANGED):
        return _CHANGED.get(name, f"{name} has changed")
    return f"{name} is {_shortened(there)} there, {_shortened(here)} here"


def _shortened(text: str | None) -> str:
    if text is None:
        return "not set"
    text = text.strip('"')
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
