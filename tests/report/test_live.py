"""The page of a running study: written now and then, and never in the way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fabricated import World, study
from lightball.report import live
from lightball.report.live import LiveReport
from lightball.studies.settings import Settings

SETTINGS = Settings(batch_sizes=(8, 32), lr=(0.2, 0.4, 0.8), stages=(8,), max_extensions=0)


class Clock:
    """Seconds that pass only when somebody asks: one each time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Listener:
    """What an observer was told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.work = 0.0
        self.said: list[str] = []

    def begin(self, phase: str, work: float) -> None:
        self.begun.append(phase)

    def advance(self, work: float) -> None:
        self.work += work

    def say(self, message: str) -> None:
        self.said.append(message)


class Watched(LiveReport):
    """Remembers the pages that were written."""

    def __init__(self, listener: Listener, clock: Clock) -> None:
        super().__init__(listener, clock)
        self.pages: list[tuple[float, str]] = []
        self._time = clock

    def write(self, reload_seconds: int | None = None) -> Path | None:
        path = super().write(reload_seconds)
        if path:
            self.pages.append((self._time.now, path.read_text(encoding="utf-8")))
        return path


def test_the_page_follows_the_study(tmp_path: Path) -> None:
    listener = Listener()
    watched = Watched(listener, Clock())
    watched.follow(tmp_path)
    settings = replace(SETTINGS, stages=(16,))
    study(settings, World(), tmp_path, width=1, observer=watched)
    during = [page for _, page in watched.pages]
    assert len(during) >= 2
    for page in during:
        assert f'http-equiv="refresh" content="{live.RELOAD_SECONDS}"' in page
        assert "So far, on made-up, nothing is decided yet" in page
    assert listener.begun == ["tuning", "confirming, 16 pairs"]
    assert listener.work > 0

    assert watched.write() == tmp_path / "report.html"
    _, last = watched.pages[-1]
    assert 'http-equiv="refresh"' not in last
    assert "On made-up, momentum had no value up to batch size 32" in last


def test_writing_takes_a_small_share_of_the_time(tmp_path: Path) -> None:
    clock = Clock()
    watched = Watched(Listener(), clock)
    watched.follow(tmp_path)
    study(replace(SETTINGS, stages=(64,)), World(), tmp_path, width=1, observer=watched)
    times = [when for when, _ in watched.pages]
    assert times[0] >= live.FIRST
    assert len(times) >= 3
    waits = [b - a for a, b in pairwise(times)]
    assert min(waits) >= 1.0 / live.SHARE  # writing takes one second of this clock


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug\nwith a second line")])
def test_a_page_that_cannot_be_made_does_not_stop_the_study(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LiveReport, folder: Path, reload_seconds: int | None) -> Path:
        raise error

    monkeypatch.setattr(LiveReport, "_write", fail)
    listener = Listener()
    watched = LiveReport(listener, Clock())
    watched.follow(tmp_path)
    result, _ = study(SETTINGS, World(), tmp_path, width=1, observer=watched)
    assert result.batches
    assert watched.write() is None
    assert len(listener.said) == 1
    assert "cannot make the report" in listener.said[0]
    assert f"lightball report {tmp_path}" in listener.said[0]
    assert "\n" not in listener.said[0]


def test_nothing_is_written_before_there_is_a_folder(tmp_path: Path) -> None:
    watched = LiveReport(Listener(), Clock())
    study(SETTINGS, World(), tmp_path, observer=watched)
    assert watched.write() is None
    assert not (tmp_path / "report.html").exists()


def test_an_interrupted_study_leaves_a_page_that_rests(tmp_path: Path) -> None:
    watched = Watched(Listener(), Clock())
    watched.follow(tmp_path)
    study(SETTINGS, World(), tmp_path, width=1, observer=watched)
    page = tmp_path / "report.html"
    before = page.read_text(encoding="utf-8")
    assert "This page loads itself again" in before
    watched.stop()
    after = page.read_text(encoding="utf-8")
    assert "loads itself again" not in after
    assert 'http-equiv="refresh"' not in after
    assert len(before) - len(after) < 200


def test_the_page_is_that_of_the_comparison_that_is_followed(tmp_path: Path) -> None:
    """Another one may be asked for in the folder at the same time."""
    study(SETTINGS, World(), tmp_path)
    watched = Watched(Listener(), Clock())
    watched.follow(tmp_path)
    study(replace(SETTINGS, batch_sizes=(64,)), World(), tmp_path)
    watched.write()
    assert "up to batch size 32" in watched.pages[-1][1]
