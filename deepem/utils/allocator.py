"""Make glibc's allocator keep large freed blocks instead of returning each to the kernel."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # HEAP_MAX_SIZE / 2 on 64 bits: glibc refuses more


def keep_memory(one_arena: bool = False) -> bool:
    """Make this process reuse freed blocks of up to 32 MiB; return whether that worked.

    By default glibc maps every large array anew and unmaps it after use, so each new array causes page faults again.
    Only glibc has these options; elsewhere this does nothing. Call it at the start of a process.

    Args:
        one_arena: Let all threads share freed blocks. Otherwise only the thread that freed a block reuses it, and a
            process that passes large arrays between threads holds a fifth more memory than it uses.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    wanted = {_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD, _TRIM_THRESHOLD: 1 << 30, _TOP_PAD: 64 << 20}
    wanted |= {_ARENA_MAX: 1} if one_arena else {}
    return all([mallopt(option, value) == 1 for option, value in wanted.items()])
