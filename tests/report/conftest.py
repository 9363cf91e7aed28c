"""A real browser for pages: what it draws, what it complains of, and what it asks for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from page_samples import OpenPage, Visit, one_of_each
from playwright.sync_api import Browser, Dialog, sync_playwright

from lightball.report.page import Page, html

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser a module; closed with it, since Playwright keeps an event loop running in the thread."""
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        message = "no Chromium on the path (Debian: apt-get install chromium), so pages are not looked at"
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def close(dialog: Dialog, visit: Visit) -> None:
    visit.dialogs.append(dialog.message)
    dialog.dismiss()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens a file and waits until its charts are drawn: ``open_page(path, width=400, scheme="dark")``."""
    contexts = []

    def open_it(
        path: Path, width: int = 1400, scheme: Literal["light", "dark"] = "light", javascript: bool = True
    ) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=javascript
        )
        context.set_default_timeout(10_000)
        contexts.append(context)
        visit = Visit(context.new_page())
        visit.tab.on(
            "console", lambda said: visit.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        visit.tab.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.tab.on(
            "request",
            lambda asked: None if asked.url.startswith(("data:", "blob:")) else visit.requests.append(asked.url),
        )
        visit.tab.on("dialog", lambda dialog: close(dialog, visit))
        visit.tab.goto(path.resolve().as_uri())
        if javascript:
            visit.tab.wait_for_selector("html[data-ready]", state="attached")
        return visit

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture
def visit(open_page: OpenPage, tmp_path: Path) -> OpenPage:
    """Writes a page, by default one with one of each, and opens it: ``visit(page, width=400)``."""

    def write_and_open(page: Page | None = None, **how: Any) -> Visit:
        path = tmp_path / "report.html"
        path.write_text(html(page or one_of_each()), encoding="utf-8")
        return open_page(path, **how)

    return write_and_open
