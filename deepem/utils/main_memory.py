"""Main memory: how much is free, and sizes for people."""

from __future__ import annotations

MIB = 1 << 20


def free_memory() -> int:
    """Bytes that other programs leave free; 8 GiB where that is not known."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 8 << 30


def in_words(bytes: float) -> str:
    """A size for people."""
    return f"{bytes / (1 << 30):.1f} GiB" if bytes >= 1 << 30 else f"{bytes / MIB:.0f} MiB"
