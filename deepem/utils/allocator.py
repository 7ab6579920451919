"""glibc's allocator, told to keep large blocks instead of handing each back to the kernel."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # HEAP_MAX_SIZE / 2 on 64 bits: glibc refuses more


def keep_memory(one_arena: bool = False) -> bool:
    """Make this process reuse freed blocks of up to 32 MiB, and return whether it could.

    By default every array of a sample is mapped afresh and unmapped after use, and each pays its page faults again.
    Only glibc has the switches; elsewhere nothing changes. Meant for the start of a process.

    Args:
        one_arena: All threads share what was freed; else blocks that one thread frees wait for it alone, and a process
            that hands large arrays from thread to thread holds a fifth more than it uses.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    wanted = {_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD, _TRIM_THRESHOLD: 1 << 30, _TOP_PAD: 64 << 20}
    wanted |= {_ARENA_MAX: 1} if one_arena else {}
    return all([mallopt(option, value) == 1 for option, value in wanted.items()])
