"""The folder of a study: what is finished stays, whatever happens, and any number of processes may add to it."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from lightball.errors import InputError
from lightball.studies.runs import Chunk, Outcome, hash_of
from lightball.studies.store import study_file
from lightball.studies.store.chunk_file import encode, file_name, key_in, outcomes_in
from lightball.studies.store.claims import Claims
from lightball.studies.store.disk import (
    FORMAT,
    DamagedError,
    cannot_write,
    read_sealed,
    reason_for,
    remove_leftovers,
    sealed,
    set_aside,
    write,
)
from lightball.studies.store.reading import MANY, chunk_names, read

_INDEXED = 1000  # chunks after which their rows join the index, so that going on after a kill is quick
_LOCK = "study"  # the claim of whoever writes study.json; no key of a chunk


class Store:
    """The results of one study in a folder; a context manager, which holds the claims of this process.

    Args:
        folder: created if missing.
        study: what determines the outcome of a run, as JSON; one folder holds one study.
        about: what else stands inside every file: versions, hardware, command.
        say: told one line about each damaged file.
        lease: seconds after which a claim expires that its process does not renew.
    """

    def __init__(
        self,
        folder: Path,
        study: Mapping[str, Any],
        about: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: None,
        lease: float = 60.0,
    ) -> None:
        self.folder = folder
        self.study: Mapping[str, Any] = study_file.as_json(study)
        self.about: Mapping[str, Any] = study_file.as_json(about)
        self.compositions: Mapping[int, Mapping[str, Any]] = {}
        self._say = say
        self._hash = hash_of(self.study)
        self._claims = Claims(folder / "claims", lease)
        self._num_saved = 0

    def __enter__(self) -> Store:
        """Make sure that the folder can be written and holds this study or none.

        Raises:
            InputError: it cannot, or holds another one, or was written by a newer version.
        """
        with contextlib.suppress(DamagedError):
            there = study_file.read(self.folder)
            if there is not None:
                study_file.require_same(self.folder, there["study"], self.study)
        self._prepare()
        try:
            self.freeze({})
        except BaseException:
            self._claims.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._claims.close()
        if kind is None and self._num_saved > MANY:
            self._index()

    def freeze(self, compositions: Mapping[int, Mapping[str, Any]]) -> Mapping[int, Mapping[str, Any]]:
        """Add the compositions of batch sizes that have none yet, and return those that hold for every process.

        Raises:
            InputError: study.json cannot be written.
        """
        there = self._read_study()
        if there is None or not set(compositions) <= set(there["compositions"]):
            with self._locked():
                there = self._read_study() or self._new_study()
                added = {size: study_file.as_json(c) for size, c in compositions.items()}
                there["compositions"] = {**added, **there["compositions"]}
                study_file.store(self.folder, there)
        self.compositions = there["compositions"]
        return self.compositions

    def plan(self, phase: str, chunks: Mapping[str, Chunk]) -> None:
        """Store which runs are in which chunk, by key, before they are computed.

        Raises:
            InputError: it cannot be written.
        """
        planned = {key: asdict(chunk) for key, chunk in chunks.items()}
        value = {"format": FORMAT, "study": self._hash, "phase": phase, "chunks": study_file.as_json(planned)}
        plain = re.sub(r"[^a-z0-9]+", "-", phase.lower()).strip("-")
        path = self.folder / "plan" / f"{plain}-{hash_of(value)}.json"
        data = sealed(value, indent=None)
        if not _holds(path, data):
            write(path, data)

    def load(self, keys: Iterable[str]) -> dict[str, list[Outcome]]:
        """The finished chunks among these, each in the order of its runs; a damaged one is named and set aside.

        Raises:
            InputError: a newer version wrote one of them.
        """
        keys = list(keys)
        found = read(self.folder, self._hash, set(keys))
        for damage in found.damaged:
            self._set_aside(damage.name, damage.reason, "its runs are computed again")
        finished: dict[str, list[Outcome]] = {}
        for key, outcome in zip(found.keys, outcomes_in(found.rows), strict=True):
            finished.setdefault(key, []).append(outcome)
        return {key: finished[key] for key in keys if key in finished}

    def claim(self, key: str) -> bool:
        """Whether this process may compute the chunk: it is not finished, and no live process holds it.

        Raises:
            InputError: the claim cannot be written.
        """
        if not self._claims.claim(key):
            return False
        if not self._files(key):  # only after the claim: another process may have finished it just before
            return True
        self._claims.release(key)
        return False

    def release(self, key: str) -> None:
        """Give up a claim; nothing where there is none."""
        self._claims.release(key)

    def save(self, key: str, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        """Store a finished chunk and release its claim, which stays where that fails.

        Raises:
            InputError: it cannot be written, say because the disk is full; what was there before stays.
        """
        data = encode(key, chunk, outcomes, self._hash, self.about)
        write(self.folder / "chunks" / file_name(key, data), data)
        self._claims.release(key)
        self._num_saved += 1
        if self._num_saved % _INDEXED == 0:
            self._index()

    def discard(self, key: str) -> None:
        """Remove a finished chunk, so that it is computed again; nothing where it is not finished.

        Raises:
            InputError: it cannot be removed.
        """
        for name in self._files(key):
            path = self.folder / "chunks" / name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from error

    def save_json(self, name: str, value: object) -> None:
        """Write JSON beside the chunks: a mapping with a digest added, anything else as its ``value``.

        Raises:
            InputError: it cannot be written.
        """
        plain = isinstance(value, dict) and set(value) != {"value"} and "digest" not in value
        write(self.folder / name, sealed(value if plain else {"value": value}))  # type: ignore[arg-type]

    def read_json(self, name: str) -> Any:
        """What was written by this name; None if nothing was, or if it is damaged, which is said."""
        try:
            value = read_sealed(self.folder / name)
        except DamagedError as error:
            self._set_aside(name, str(error), "it is written anew")
            return None
        return value["value"] if value is not None and set(value) == {"value"} else value

    def _index(self) -> None:
        with contextlib.suppress(InputError):  # a chunk of a newer version is for who asks for it
            read(self.folder, self._hash)

    def _prepare(self) -> None:
        probe = self.folder / f".write-test.{secrets.token_hex(8)}.tmp"
        folders = [self.folder / name for name in ("chunks", "plan", "claims")]
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the folder {str(self.folder)!r}: {reason_for(error)}; choose another with --out"
            ) from error
        remove_leftovers([self.folder, *folders])

    def _read_study(self) -> dict[str, Any] | None:
        """The content of study.json; None if it has to be written."""
        try:
            there = study_file.read(self.folder)
        except DamagedError as error:
            self._set_aside(study_file.NAME, str(error), "it is written anew")
            return None
        if there is not None:
            study_file.require_same(self.folder, there["study"], self.study)
        return there

    def _new_study(self) -> dict[str, Any]:
        """The content of study.json where it is missing or was damaged, with the compositions that are still known."""
        copy = study_file.read_copy(self.folder)
        known = copy["compositions"] if copy and copy["study"] == self.study else {}
        return {**study_file.new(self.study, self.about), "compositions": {**known, **self.compositions}}

    def _files(self, key: str) -> list[str]:
        return [name for name in chunk_names(self.folder) if key_in(name) == key]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        while not self._claims.claim(_LOCK):
            time.sleep(0.01)
        try:
            yield
        finally:
            self._claims.release(_LOCK)

    def _set_aside(self, name: str, reason: str, then: str) -> None:
        set_aside(self.folder, name)
        self._say(f"{self.folder / name} is damaged ({reason}): set aside in {self.folder / 'damaged'}; {then}")


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
