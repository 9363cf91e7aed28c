"""Who computes which chunk: claims that only one process can win, and that die with it.

A claim is a file ``claims/KEY.N`` that is created exclusively; the owner is the one with the highest N. A dead owner's
claim N is taken over by creating N + 1. A claim that is believed dead while its owner still computes costs that
chunk's time twice and nothing else: both write the same outcome, each file whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lightball.studies.store.disk import cannot_write, clock
from lightball.studies.store.process import Process, this_process


@dataclass(frozen=True)
class Claim:
    """A claim as it is found; ``process`` and ``since`` are None where it was only half written."""

    path: Path
    modified: float
    process: Process | None = None
    since: str | None = None
    token: str | None = None
    lease: float | None = None

    @property
    def generation(self) -> int:
        return int(self.path.suffix[1:])

    @property
    def key(self) -> str:
        return self.path.stem

    def expired(self, lease: float) -> bool:
        """Its process is gone, or has not touched it for its lease (``lease`` where it names none).

        By the clock of the file system; where that clock jumps, a claim may be believed dead or alive wrongly until
        it is touched next, at most a quarter of a lease later.
        """
        if self.process is not None and self.process.is_gone():
            return True
        return abs(clock(self.path.parent) - self.modified) > (self.lease or lease)


def claims_in(folder: Path, key: str | None = None) -> list[Claim]:
    """The claims on a key, or on all of them, by key and generation."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    paths = [folder / name for name in names if name.rpartition(".")[2].isdecimal()]
    found = [_read(path) for path in paths if path.stem and (key is None or path.stem == key)]
    return sorted((c for c in found if c is not None), key=lambda c: (c.key, c.generation))


def _read(path: Path) -> Claim | None:
    try:
        modified, content = path.stat().st_mtime, path.read_bytes()
    except OSError:
        return None  # released in the meantime
    try:
        facts = json.loads(content)
        process = Process(**{**facts["process"], "pid": int(facts["process"]["pid"])})
        return Claim(path, modified, process, str(facts["since"]), str(facts["token"]), float(facts["lease"]))
    except Exception:  # its owner was killed while writing it, or is about to
        return Claim(path, modified)


@dataclass
class Claims:
    """The claims of this process, kept alive by a thread."""

    folder: Path
    lease: float
    _held: dict[str, Claim] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event | None = None
    _pid: int = 0

    def claim(self, key: str) -> bool:
        """Whether this process owns the key from here on; False too if it does already, in another thread.

        Raises:
            InputError: the claim cannot be written.
        """
        self._beat()
        with self._lock:
            if key in self._held:
                return False
            others = claims_in(self.folder, key)
            if others and not others[-1].expired(self.lease):
                return False
            mine = self._create(key, others[-1].generation + 1 if others else 1)
            if mine is None:
                return False
            others = [claim for claim in claims_in(self.folder, key) if claim.token != mine.token]
            if not all(claim.expired(self.lease) for claim in others):  # awake again, or as quick as we were
                _remove(mine)
                return False
            for claim in others:
                _remove(claim)
            self._held[key] = mine
            return True

    def release(self, key: str) -> None:
        if self._pid != os.getpid():
            return  # a fork: the claims are its parent's
        with self._lock:
            mine = self._held.pop(key, None)
            if mine is not None:
                _remove(mine)

    def close(self) -> None:
        """Release all."""
        if self._stop is not None and self._pid == os.getpid():
            self._stop.set()
            self._stop = None
        for key in list(self._held):
            self.release(key)

    def _create(self, key: str, generation: int) -> Claim | None:
        """None if another process was quicker."""
        path = self.folder / f"{key}.{generation}"
        token, since = secrets.token_hex(8), datetime.now(UTC).isoformat(timespec="seconds")
        process = this_process()
        facts = {"process": vars(process), "since": since, "token": token, "lease": self.lease}
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return None
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(facts))
        except OSError as error:
            path.unlink(missing_ok=True)
            raise cannot_write(path, error) from error
        return Claim(path, 0.0, process, since, token, self.lease)

    def _beat(self) -> None:
        """Start the thread, once in each process: a fork takes along neither threads nor claims."""
        if self._pid != os.getpid():
            self._pid, self._held, self._lock, self._stop = os.getpid(), {}, threading.Lock(), None
        with self._lock:
            if self._stop is None:
                self._stop = threading.Event()
                threading.Thread(target=self._touch, args=(self._stop,), name="claims", daemon=True).start()

    def _touch(self, stop: threading.Event) -> None:
        while not stop.wait(self.lease / 4):
            for claim in list(self._held.values()):
                with contextlib.suppress(OSError):  # another process took it over while we were stopped
                    os.utime(claim.path)


def _remove(claim: Claim) -> None:
    """Remove a claim unless its name stands for another one by now."""
    with contextlib.suppress(OSError):
        now = _read(claim.path)
        if now is not None and now.token == claim.token:
            claim.path.unlink()


def in_flight(folder: Path, lease: float) -> Iterator[Claim]:
    """The claims that are alive."""
    owners = {claim.key: claim for claim in claims_in(folder)}
    return (claim for claim in owners.values() if not claim.expired(lease))
