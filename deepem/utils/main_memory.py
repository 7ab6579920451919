"""Free main memory, and human-readable sizes."""

from __future__ import annotations

MIB = 1 << 20


def free_memory() -> int:
    """Return the free main memory in bytes; 8 GiB if unknown."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 8 << 30


def in_words(bytes: float) -> str:
    """Format a number of bytes for people."""
    return f"{bytes / (1 << 30):.1f} GiB" if bytes >= 1 << 30 else f"{bytes / MIB:.0f} MiB"
