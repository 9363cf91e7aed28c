"""``comparison.json``: which comparison a folder was last used for; with the finished chunks it tells all the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightball.errors import InputError, reason_of
from lightball.studies.plan import BatchPlan, Plan
from lightball.studies.settings import Settings
from lightball.studies.store.disk import FORMAT, DamagedError, read_sealed
from lightball.studies.store.reading import newer

NAME = "comparison.json"
TIME = "time.json"  # seconds of all commands that computed runs in the folder


@dataclass(frozen=True)
class Request:
    """A comparison that was asked for.

    ``command`` are the words of the command line, ``started`` the time in UTC as ISO 8601, ``versions`` those of
    lightball, Python and the libraries, ``hardware`` the kind of processor.
    """

    task: str
    settings: Settings
    plan: Plan
    command: tuple[str, ...]
    started: str
    versions: Mapping[str, str]
    hardware: str


def new(task: str, settings: Settings, plan: Plan, about: Mapping[str, Any], command: Sequence[str]) -> Request:
    """The request that is being made now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Request(task, settings, plan, tuple(command), now, about["versions"], about["hardware"])


def as_json(request: Request) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(request)}


def read(folder: Path) -> Request:
    """The request of the folder's last comparison.

    Raises:
        InputError: there is none, or it cannot be believed.
    """
    again = "run the command of the study again: it finds what is finished, and writes it anew"
    try:
        value = read_sealed(folder / NAME)
        if value is None:
            raise InputError(f"the folder {str(folder)!r} has no {NAME}: {again}")
        newest = value["format"]
        if newest <= FORMAT:
            return _from_json(value)
    except (DamagedError, LookupError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else reason_of(error)
        raise InputError(f"the file {str(folder / NAME)!r} is damaged ({reason}): {again}") from error
    raise newer(folder, newest)


def _from_json(value: Mapping[str, Any]) -> Request:
    plan = value["plan"]
    batches = tuple(BatchPlan(**{**b, "confirmation_runs": tuple(b["confirmation_runs"])}) for b in plan["batches"])
    return Request(
        task=value["task"],
        settings=Settings(**value["settings"]),
        plan=Plan(batches, plan["num_workers"]),
        command=tuple(value["command"]),
        started=value["started"],
        versions=value["versions"],
        hardware=value["hardware"],
    )
