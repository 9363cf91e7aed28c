"""A page that follows a study while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from lightball.errors import InputError, reason_of
from lightball.studies import request
from lightball.studies.ledger import Observer
from lightball.studies.request import Request

FIRST = 10.0  # seconds until the page is written first
SHARE = 0.05  # of the time that writing it may take
AGAIN = 60.0  # seconds after which a page that could not be made is tried again
RELOAD_SECONDS = 30  # how often a page that is open in a browser loads itself again


class LiveReport:
    """An observer that also writes the page of a study now and then, from what is on disk.

    A page that cannot be made is no reason to stop a study: that is said once, and it is tried again later. It is the
    page of the comparison that was last asked for in the folder when following began, whatever others do there.

    Args:
        observer: told everything that this one is told.
        clock: seconds, for tests.
    """

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._folder: Path | None = None
        self._request: Request | None = None
        self._reloading: Path | None = None
        self._failed = False
        self._next = 0.0

    def follow(self, folder: Path) -> None:
        """From now on, the page of the study in this folder is written."""
        self._folder = folder
        with contextlib.suppress(InputError):
            self._request = request.read(folder)
        self._next = self._clock() + FIRST

    def begin(self, phase: str, work: float) -> None:
        self._observer.begin(phase, work)

    def advance(self, work: float) -> None:
        self._observer.advance(work)
        if self._folder is not None and self._clock() >= self._next:
            self.write(RELOAD_SECONDS)

    def say(self, message: str) -> None:
        self._observer.say(message)

    def write(self, reload_seconds: int | None = None) -> Path | None:
        """Write the page now; None if it cannot be, which is said."""
        if self._folder is None:
            return None
        start = self._clock()
        try:
            path = self._write(self._folder, reload_seconds)
        except Exception as error:  # the runs are worth more than the page
            if not self._failed:
                self._observer.say(f"cannot make the report: {reason_of(error)}; try  lightball report {self._folder}")
            self._failed = True
            self._next = self._clock() + AGAIN
            return None
        self._reloading = path if reload_seconds else None
        now = self._clock()
        self._next = now + max(FIRST, (now - start) / SHARE)
        return path

    def stop(self) -> None:
        """The study was interrupted: the page, if there is one, shall not load itself again."""
        if self._reloading is not None:
            from lightball.report.writing import stop_reloading

            with contextlib.suppress(OSError, InputError):  # it is old, then, but as true as before
                stop_reloading(self._reloading)

    def _write(self, folder: Path, reload_seconds: int | None) -> Path:
        from lightball.report.comparison import comparison_page
        from lightball.report.writing import NAME, write_page
        from lightball.studies.study import read_study

        write_page(comparison_page(read_study(folder, self._request), reload_seconds), folder / NAME)
        return folder / NAME
