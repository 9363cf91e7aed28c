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
from lightball.studies.store.chunk_file import encode, outcomes_in
from lightball.studies.store.chunk_folder import put, remove
from lightball.studies.store.claims import Claims
from lightball.studies.store.disk import (
    FORMAT,
    DamagedError,
    read_sealed,
    reason_for,
    remove_leftovers,
    sealed,
    set_aside,
    tick,
    write,
)
from lightball.studies.store.reading import MANY, names_of, read

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
        self._entered = 0.0

    def __enter__(self) -> Store:
        """Make sure that the folder can be written and holds this study or none.

        Raises:
            InputError: it cannot, or holds another one, or was written by a newer version, or cannot be read.
        """
        with contextlib.suppress(DamagedError):
            there = study_file.read(self.folder)
            if there is not None:
                study_file.require_same(self.folder, there["study"], self.study)
        self._prepare()
        self._claims.sweep()
        self._entered = tick(self.folder / "chunks")
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
            with self._locked(_LOCK):
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
            InputError: a newer version wrote one of them, one cannot be read, or a damaged one cannot be moved.
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
        if not names_of(self.folder, key):  # only after the claim: another process may have finished it just before
            return True
        self._claims.release(key)
        return False

    def save(self, key: str, chunk: Chunk, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Store a finished chunk, release its claim, which stays where that fails, and return the outcomes that hold.

        Those of another process hold where it has finished the chunk first.

        Raises:
            InputError: it cannot be written, say because the disk is full; what was there before stays.
        """
        data = encode(key, chunk, outcomes, self._hash, self.about)
        with self._locked(f"{key}-save"):
            is_ours, holding = put(self.folder, self._hash, key, data)
        self._claims.release(key)
        self._num_saved += is_ours
        if is_ours and self._num_saved % _INDEXED == 0:
            self._index()
        return holding

    def discard(self, key: str) -> bool:
        """Remove a chunk that was finished before this store was entered, so that it is computed again.

        What was finished later stays, so that commands which retry at the same time keep each other's results.

        Returns:
            Whether nothing is left, by this call or that of another process: the chunk has to be computed again.

        Raises:
            InputError: it cannot be removed.
        """
        return remove(self.folder, key, self._entered)

    def save_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a mapping beside the chunks, as JSON with a digest.

        Raises:
            InputError: it cannot be written.
        """
        write(self.folder / name, sealed(value))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """What was written by this name; None if nothing was, or if it is damaged, which is said.

        Raises:
            InputError: it cannot be read, or is damaged and cannot be moved.
        """
        try:
            return read_sealed(self.folder / name)
        except DamagedError as error:
            self._set_aside(name, str(error), "it is written anew")
            return None

    def fix_json(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Add the entries that a file of :meth:`save_json` has not yet, and return those that hold for every process.

        Raises:
            InputError: it cannot be read or written.
        """
        there = self.read_json(name)
        if there is None or not set(value) <= set(there):
            with self._locked(_LOCK):
                there = {**study_file.as_json(value), **(self.read_json(name) or {})}
                self.save_json(name, there)
        return there

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

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        while not self._claims.claim(name):
            time.sleep(0.01)
        try:
            yield
        finally:
            self._claims.release(name)

    def _set_aside(self, name: str, reason: str, then: str) -> None:
        set_aside(self.folder, name)
        self._say(f"{self.folder / name} is damaged ({reason}): set aside in {self.folder / 'damaged'}; {then}")


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
