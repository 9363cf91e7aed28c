"""Who computes which chunk: claims that only one process can win, and that die with it.

A claim is a file ``claims/KEY.N`` that is created exclusively; the owner is the one with the highest N. A dead owner's
claim N is taken over by creating N + 1. A claim that is believed dead while its owner still computes costs that
chunk's time twice and nothing else: whoever saves second takes the outcomes of the first, also where its own differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from lightball.studies.store.disk import cannot_write, clock
from lightball.studies.store.process import Process, this_process

_NAME = re.compile(r"([\w-]+)\.([0-9]+)")


@dataclass(frozen=True)
class Claim:
    """A claim as it is found; ``process`` and ``since`` are None where it was only half written or cannot be read."""

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

    def is_gone(self) -> bool:
        """Whether its process is known to have ended, which only a process of the same machine can tell."""
        return self.process is not None and self.process.is_gone()

    def looks_expired(self, lease: float) -> bool:
        """It has not been touched for its lease (``lease`` where it names none), by the clock of the file system.

        So do the claims of live processes after a suspend or a jump of that clock, until they are touched next, at
        most a quarter of a lease later.
        """
        return abs(clock(self.path.parent) - self.modified) > (self.lease or lease)


def claims_in(folder: Path, key: str | None = None) -> list[Claim]:
    """The claims on a key, or on all of them, by key and generation."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    matches = filter(None, map(_NAME.fullmatch, names))
    found = [_read(folder / match[0]) for match in matches if key in (None, match[1])]
    return sorted((c for c in found if c is not None), key=lambda c: (c.key, c.generation))


def _read(path: Path) -> Claim | None:
    try:
        modified = path.stat().st_mtime
    except OSError:
        return None  # released in the meantime
    try:
        facts = json.loads(path.read_bytes())
        process = Process(**{**facts["process"], "pid": int(facts["process"]["pid"])})
        return Claim(path, modified, process, str(facts["since"]), str(facts["token"]), float(facts["lease"]))
    except FileNotFoundError:
        return None
    except Exception:  # its owner was killed while writing it, or is about to; or it belongs to another user
        return Claim(path, modified)


@dataclass
class Claims:
    """The claims of this process, kept alive by a thread."""

    folder: Path
    lease: float
    _held: dict[str, Claim] = field(default_factory=dict)
    _watched: dict[tuple[Path, float], float] = field(default_factory=dict)
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
            if not self._expired(others):
                return False
            mine = self._create(key, others[-1].generation + 1 if others else 1)
            if mine is None:
                return False
            others = [claim for claim in claims_in(self.folder, key) if claim.token != mine.token]
            if not self._expired(others):  # awake again, or as quick as we were
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

    def sweep(self) -> None:
        """Remove the claims of processes that are gone, which nobody else does once their chunks are finished."""
        for claim in claims_in(self.folder):
            if claim.is_gone():
                _remove(claim)

    def _expired(self, claims: list[Claim]) -> bool:
        """Whether all of these have expired: their processes are gone, or were watched in vain.

        A claim that looks expired must stay untouched for half of its lease from when this process first saw it so,
        by the monotonic clock, which neither jumps nor runs during a suspend: a live owner touches it in that time.
        """
        expired = [claim.is_gone() or self._watched_in_vain(claim) for claim in claims]  # each is watched from here on
        return all(expired)

    def _watched_in_vain(self, claim: Claim) -> bool:
        if not claim.looks_expired(self.lease):
            return False
        now = monotonic()
        since = self._watched.setdefault((claim.path, claim.modified), now)
        return now - since >= (claim.lease or self.lease) / 2

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
    """The claims that look alive."""
    owners = {claim.key: claim for claim in claims_in(folder)}
    return (claim for claim in owners.values() if not (claim.is_gone() or claim.looks_expired(lease)))
