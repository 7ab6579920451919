"""A real browser for tests of pages: headless Chromium as the system has it, driven by playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deepem.utils.chromium import HEADLESS, find_chromium

PATIENCE_MS = 240_000
"""On a busy machine a browser takes its time."""


@dataclass
class Page:
    """A page that is open.

    Attributes:
        page: Playwright's page.
        console: What the page wrote on the console as errors and warnings, and uncaught exceptions.
        requests: The addresses that it asked for, other than its own and data in it.
    """

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def count(self, selector: str) -> int:
        """How many elements a selector finds."""
        return int(self.page.locator(selector).count())

    @property
    def overflows(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def chromium() -> str:
    """The program; without it, or without playwright, the test is skipped."""
    pytest.importorskip("playwright", reason="playwright is not installed (the extra dev has it)")
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium, nor a browser built on it, is installed")
    return found


@contextmanager
def started() -> Iterator[Any]:
    """A browser."""
    program = chromium()
    words = [word for word in HEADLESS if not word.startswith("--remote-debugging")]  # playwright has its own way in
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*words, "--no-sandbox"], timeout=PATIENCE_MS
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1200, height: int = 800, dark: bool = False) -> Iterator[Page]:
    """A file as a page in a window of this size, in the light or the dark theme."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    address = path.resolve().as_uri()
    try:
        context.set_default_timeout(PATIENCE_MS)
        shown = Page(context.new_page())
        shown.page.on(
            "console", lambda said: shown.console.append(said.text) if said.type in ("error", "warning") else None
        )
        shown.page.on("pageerror", lambda error: shown.console.append(str(error)))
        shown.page.on(
            "request",
            lambda request: (
                shown.requests.append(request.url)
                if request.url != address and not request.url.startswith("data:")
                else None
            ),
        )
        shown.page.goto(address)
        yield shown
    finally:
        context.close()
