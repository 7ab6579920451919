"""Find a Chromium browser, and the flags with which it draws WebGL 2 without a screen or a graphics card."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)

HEADLESS = (
    *("--headless", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--remote-debugging-port=0"),
)
"""Flags of a browser that draws in software and does not call home."""


def find_chromium() -> str | None:
    """Return the path of Chromium, or of a browser built on it; None if there is none."""
    found = (shutil.which(name) for name in (*NAMES, *PLACES))
    return next((path for path in found if path is not None), None)


def headless(browser: str, profile: str, url: str) -> list[str]:
    """Return the command that opens a page without a screen.

    Args:
        browser: As returned by `find_chromium`.
        profile: An empty folder for the browser's own files.
        url: The page.
    """
    as_root = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()  # Chromium's own condition
    return [browser, *HEADLESS, *as_root, f"--user-data-dir={profile}", url]
