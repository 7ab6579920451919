"""Progress of a scan: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

LINE_EVERY_S = 10.0


class Progress:
    """Counts patches and shows voxels per second and the time left; silent unless `shown`.

    Args:
        patches: Total number of patches.
        voxels: Total number of output voxels.
        shown: Whether to print anything.
        label: Name of the computation.
    """

    def __init__(self, patches: int, voxels: int, shown: bool = True, label: str = "forward") -> None:
        self.patches, self.voxels, self.shown, self.label = patches, voxels, shown, label
        self.count = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self.begun = self._told = time.monotonic()
        if self.shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.patches, desc=self.label, unit="patch", dynamic_ncols=True)
        return self

    def add(self, patches: int) -> None:
        """Count patches as done."""
        self.count += patches
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(_rate(self.voxels_per_s), refresh=False)
            self._bar.update(patches)
        elif self.shown and now - self._told >= LINE_EVERY_S:
            self._told = now
            left = (now - self.begun) / self.count * (self.patches - self.count)
            sys.stderr.write(
                f"{self.label}: {self.count}/{self.patches} patches, {_rate(self.voxels_per_s)}, {_span(left)} left\n"
            )

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.begun

    @property
    def voxels_per_s(self) -> float:
        """Average output voxels per second so far."""
        return self.voxels * self.count / max(self.patches, 1) / max(self.seconds, 1e-9)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self.shown and kind is None:
            sys.stderr.write(
                f"{self.label}: {self.voxels:,} voxels in {_span(self.seconds)}, {_rate(self.voxels_per_s)}\n"
            )


def tell(line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _rate(voxels_per_s: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if voxels_per_s >= unit:
            return f"{voxels_per_s / unit:.2f} {name}voxels/s"
    return f"{voxels_per_s:.0f} voxels/s"
