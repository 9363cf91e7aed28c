"""The folder of a single run: checkpoints while it is trained, its curve for good."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lightball.errors import InputError
from lightball.studies.runs import Chunk
from lightball.training.folder import held

CURVE = "curve.jsonl"
CHECKPOINT_SECONDS = 60.0
_PATIENCE = 10.0  # seconds; a worker whose parent was killed ends within one
_POLL = 0.1


def runs_folder(study: Path) -> Path:
    """Where the folders of runs lie, in the folder of their study, by the key of their chunk."""
    return study / "runs"


@dataclass(frozen=True)
class Kept:
    """Where each run has a folder, and when runs stop.

    Args:
        folder: of all runs.
        basis: a hash of what determines the outcomes of runs.
        deadline: a ``time.time()``; None: never.
        checkpoint_seconds: between checkpoints of a run.
    """

    folder: Path
    basis: str
    deadline: float | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def of(self, chunk: Chunk) -> Path:
        """The folder of a run, which is a chunk of its own."""
        return self.folder / chunk.key(self.basis)


def wait_until_free(folder: Path) -> None:
    """Wait while another process trains in the folder, for some seconds: its parent was killed, and it will notice."""
    end = time.monotonic() + _PATIENCE
    while folder.exists() and time.monotonic() < end:
        try:
            with held(folder):
                return
        except InputError:
            time.sleep(_POLL)


def drop_checkpoints(folder: Path) -> None:
    """Leave the curve alone; for runs whose outcome is stored."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / ".lock").unlink(missing_ok=True)
