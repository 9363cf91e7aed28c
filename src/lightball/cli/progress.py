"""Progress and time left, on standard error, and only where somebody can see it."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """One bar for each phase; silent when standard error is not a terminal."""

    def __init__(self, enabled: bool) -> None:
        console = Console(stderr=True)
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (enabled and sys.stderr.isatty()),
        )
        self._task: TaskID | None = None

    def begin(self, phase: str, work: float) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(phase, total=work or None)

    def advance(self, work: float) -> None:
        if self._task is not None:
            self._bar.advance(self._task, work)

    def say(self, message: str) -> None:
        """A line above the bar; where there is none, a line on standard error."""
        self._bar.console.print(f"lightball: {message}", markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away, so that what is printed next has a line of its own."""
        self._bar.stop()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
