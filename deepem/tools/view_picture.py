"""Draw a viewer without a screen: a headless Chromium opens the page, and neuroglancer sends the picture back."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deepem.tools.view_server import Window
from deepem.utils.chromium import find_chromium, headless
from deepem.utils.errors import InputError
from deepem.utils.files import replacing

PATIENCE_S, LONGEST_S = 300.0, 1800.0
"""Time without any progress, and time in all, after which the browser is given up."""

INSTALL = "Chromium: apt-get install chromium, or any Chrome on the PATH"


def draw(viewer: Any, out: Path, size: tuple[int, int], windows: Sequence[Window]) -> None:
    """Write what a viewer shows once all its chunks are there.

    Args:
        viewer: neuroglancer's viewer.
        out: The PNG.
        size: Width and height in pixels.
        windows: The volumes that the viewer reads; a failed read ends the wait.

    Raises:
        InputError: there is no browser, it does not draw, or a volume cannot be read.
    """
    browser = find_chromium()
    if browser is None:
        raise InputError("--screenshot", "no browser on this machine", INSTALL)
    with viewer.txn() as state:
        state.show_axis_lines = False
        state.show_default_annotations = False
        state.prefetch = False
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.show_panel_borders = False
        config.viewer_size = list(size)
    with _opened(browser, viewer.get_viewer_url()) as process:
        for _ in range(5):  # the first pictures may have the size of the browser's window
            found = _picture(viewer, process, browser, windows)
            if (found.width, found.height) == size:
                break
    with replacing(out) as beside:
        beside.write_bytes(found.image)


def _picture(viewer: Any, process: subprocess.Popen[bytes], name: str, windows: Sequence[Window]) -> Any:
    """Wait for a picture; progress of its chunks renews the patience."""
    arrived, replies = threading.Event(), list[Any]()
    begun = time.monotonic()
    progress: dict[str, Any] = {"seen": None, "at": begun}

    def on_picture(reply: Any) -> None:
        replies.append(reply.screenshot)
        arrived.set()

    def on_progress(told: Any) -> None:
        seen = str(told.to_json())
        if seen != progress["seen"]:
            progress.update(seen=seen, at=time.monotonic())

    viewer.async_screenshot(on_picture, statistics_callback=on_progress)
    while not arrived.wait(0.2):
        for window in windows:
            if window.failure is not None:
                raise window.failure
        if process.poll() is not None:
            raise InputError("--screenshot", f"{name} ended with code {process.returncode}", INSTALL)
        now = time.monotonic()
        if now - progress["at"] > PATIENCE_S or now - begun > LONGEST_S:
            got = f"no picture from {name} in {now - begun:.0f} s"
            raise InputError("--screenshot", got, "a browser that draws WebGL 2, and a higher --zoom: it reads less")
    return replies[0]


@contextmanager
def _opened(browser: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the browser with a page; end it with all its processes."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            process = subprocess.Popen(headless(browser, profile, url), start_new_session=True, **quiet)  # type: ignore[call-overload]
        except OSError as error:
            raise InputError("--screenshot", f"{browser}: {error.strerror}", INSTALL) from error
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
