"""How far a study is: what was planned, what is finished, what went wrong."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightball.errors import reason_of
from lightball.studies.runs import Phase, hash_of
from lightball.studies.store import study_file
from lightball.studies.store.chunk_file import NewerFormatError, decode
from lightball.studies.store.claims import Claim, in_flight
from lightball.studies.store.disk import FORMAT, Damage, DamagedError, read_sealed, reason_for, unsealed
from lightball.studies.store.reading import Found, newer, read

LEASE = 60.0  # of a claim that names none


@dataclass(frozen=True)
class Counts:
    """Runs of a phase at a batch size; ``failed`` ones diverged, ``crashed`` ones ended with an error.

    Both are among the finished ones. Runs ``in_flight`` are being computed and still among the missing ones.
    """

    phase: Phase
    batch_size: int
    planned: int
    finished: int
    failed: int
    crashed: int
    missing: int
    in_flight: int


@dataclass(frozen=True)
class InFlight:
    """A chunk that a process is computing; what is None stands in a claim that was only half written."""

    key: str
    runs: int
    host: str | None
    pid: int | None
    since: str | None


@dataclass(frozen=True)
class Survey:
    """The state of a folder; ``errors`` has the first lines of errors and how many runs ended with each."""

    folder: str
    study: Mapping[str, Any]
    counts: tuple[Counts, ...]
    in_flight: tuple[InFlight, ...]
    damaged: tuple[Damage, ...]
    errors: tuple[tuple[str, int], ...]


@dataclass
class _Tally:
    planned: int = 0
    finished: int = 0
    failed: int = 0
    crashed: int = 0
    in_flight: int = 0


def survey(folder: str | Path) -> Survey:
    """Count the runs of a study; nothing in the folder is moved.

    Counted is by chunk: a run that commands have planned in two chunks counts twice.

    Raises:
        InputError: there is no such folder, it holds no study, a newer version wrote it, or a file cannot be read.
    """
    folder = Path(folder)
    study, damaged = study_file.find(folder)
    hash_of_study = hash_of(study["study"])
    plans, damaged_plans = _plans(folder, hash_of_study)
    found = read(folder, hash_of_study)
    open_keys = set(plans) - set(found.keys)
    claims = [claim for claim in in_flight(folder / "claims", LEASE) if claim.key in open_keys]
    aside = _set_aside(folder, hash_of_study)
    return Survey(
        folder=str(folder),
        study=study["study"],
        counts=_count(found, plans, claims),
        in_flight=tuple(_in_flight(claim, plans[claim.key].runs) for claim in claims),
        damaged=(*damaged, *damaged_plans, *found.damaged, *_beside(folder, hash_of_study), *aside),
        errors=_errors(found.rows["error"].to_pylist()),
    )


def _errors(errors: Iterable[str | None]) -> tuple[tuple[str, int], ...]:
    """The first lines of errors and how often each came; those that differ by numbers or logs only, once."""
    examples: dict[str, str] = {}
    counter: Counter[str] = Counter()
    for line in (error.strip().partition("\n")[0] for error in errors if error is not None):
        what = re.sub(r"\d+", "#", line.partition(" (log: ")[0])
        examples.setdefault(what, line)
        counter[what] += 1
    return tuple((examples[what], count) for what, count in counter.most_common())


@dataclass(frozen=True)
class _Planned:
    phase: str
    batch_size: int
    runs: int


def _count(found: Found, plans: Mapping[str, _Planned], claims: list[Claim]) -> tuple[Counts, ...]:
    tallies: dict[tuple[str, int], _Tally] = defaultdict(_Tally)
    rows = found.rows.select(["phase", "batch_size", "failed", "error"]).to_pylist()
    for key, row in zip(found.keys, rows, strict=True):
        tally = tallies[row["phase"], row["batch_size"]]
        tally.finished += 1
        tally.planned += key not in plans  # its plan is damaged or gone
        tally.crashed += row["error"] is not None
        tally.failed += row["error"] is None and row["failed"]
    for chunk in plans.values():
        tallies[chunk.phase, chunk.batch_size].planned += chunk.runs
    for claim in claims:
        chunk = plans[claim.key]
        tallies[chunk.phase, chunk.batch_size].in_flight += chunk.runs
    return tuple(_counts(*place, tallies[place]) for place in sorted(tallies, key=_order))


def _plans(folder: Path, study: str) -> tuple[dict[str, _Planned], list[Damage]]:
    """The planned chunks by key."""
    plans: dict[str, _Planned] = {}
    damaged = []
    for path in sorted((folder / "plan").glob("[!.]*.json")):
        try:
            value = read_sealed(path)
            if value is None:
                continue
            if value["format"] > FORMAT:
                raise newer(folder, value["format"])
            if value["study"] != study:
                raise DamagedError("it belongs to another study")
            for key, chunk in value["chunks"].items():
                plans[key] = _Planned(chunk["phase"], chunk["runs"][0]["batch_size"], len(chunk["runs"]))
        except (DamagedError, LookupError, TypeError) as error:
            damaged.append(Damage(f"plan/{path.name}", reason_of(error)))
    return plans, damaged


def _beside(folder: Path, study: str) -> list[Damage]:
    """Damage of the JSON beside the chunks."""
    names = sorted(path.name for path in folder.glob("[!.]*.json") if path.name != study_file.NAME)
    return [Damage(name, reason) for name in names if (reason := _reason(folder / name, study)) is not None]


def _set_aside(folder: Path, study: str) -> list[Damage]:
    """What was found damaged before."""
    paths = sorted((folder / "damaged").glob("*"))
    return [Damage(f"damaged/{path.name}", _reason(path, study) or "it was set aside") for path in paths]


def _reason(path: Path, study: str) -> str | None:
    """Why a file is not believed; None if it is."""
    name, is_chunk, _ = path.name.partition(".parquet")  # one of several by the same name has more behind
    try:
        data = path.read_bytes()
        if is_chunk:
            decode(name + is_chunk, data, study)
        else:
            unsealed(data)
    except FileNotFoundError:
        return None
    except DamagedError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {reason_for(error)}"
    except NewerFormatError as error:
        return f"its format is {error.args[0]}"
    return None


def _order(place: tuple[str, int]) -> tuple[bool, str, int]:
    return place[0] != "tune", *place


def _counts(phase: str, batch_size: int, tally: _Tally) -> Counts:
    missing = tally.planned - tally.finished
    return Counts(phase, batch_size, **vars(tally), missing=missing)  # type: ignore[arg-type]


def _in_flight(claim: Claim, runs: int) -> InFlight:
    if claim.process is None:
        return InFlight(claim.key, runs, None, None, None)
    return InFlight(claim.key, runs, claim.process.host, claim.process.pid, claim.since)
