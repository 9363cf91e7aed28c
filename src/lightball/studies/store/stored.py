"""The finished chunks of a folder as they are now, for those who only read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightball.studies.runs import Chunk, Outcome, hash_of
from lightball.studies.store import study_file
from lightball.studies.store.chunk_file import outcomes_in
from lightball.studies.store.disk import Damage, DamagedError, read_sealed
from lightball.studies.store.reading import read


class Stored:
    """What a :class:`~lightball.studies.store.Store` on the folder would find; nothing is written, claimed or moved.

    Cost: as :func:`lightball.load`.

    Raises:
        InputError: there is no such folder, it holds no study, a newer version wrote it, or a file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        there, damaged = study_file.find(folder)
        self.study: Mapping[str, Any] = there["study"]
        found = read(folder, hash_of(self.study))
        self.damaged: tuple[Damage, ...] = (*damaged, *found.damaged)
        self.num_runs = found.rows.num_rows
        self._chunks: dict[str, list[Outcome]] = {}
        for key, outcome in zip(found.keys, outcomes_in(found.rows), strict=True):
            self._chunks.setdefault(key, []).append(outcome)

    def load(self, keys: Iterable[str]) -> dict[str, list[Outcome]]:
        """The finished chunks among these."""
        return {key: self._chunks[key] for key in keys if key in self._chunks}

    def fix_json(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """What a store would return; a damaged file counts as missing."""
        try:
            there = read_sealed(self.folder / name)
        except DamagedError:
            there = None
        return {**study_file.as_json(value), **(there or {})}

    def save_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Not here."""

    def plan(self, phase: str, chunks: Mapping[str, Chunk]) -> None:
        """Not here."""

    def claim(self, key: str) -> bool:
        """Nobody computes here."""
        return False

    def save(self, key: str, chunk: Chunk, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Nothing is computed here."""
        raise NotImplementedError

    def discard(self, key: str) -> bool:
        """What is there stays."""
        return False
