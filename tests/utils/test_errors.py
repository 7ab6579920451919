"""What the system or a library reports as its own error, and a user can mend."""

from __future__ import annotations

import errno
import os

import pytest

from deepem.utils.errors import of_environment


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.h5"),
            "a.h5: got No space left .*, wants room on the disk",
        ),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files, wants more open files: ulimit -n"),
        (MemoryError("Unable to allocate 4 PiB"), "memory: got MemoryError: Unable to .*, wants more memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 4"), "memory: got .*, wants more memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory: got .*, wants more memory"),
    ],
)
def test_what_the_machine_lacks_is_told(error: Exception, told: str) -> None:
    found = of_environment(error)
    assert found is not None
    with pytest.raises(type(found), match=told):
        raise found


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("no"), OSError(errno.ENOENT, "gone")])
def test_a_bug_is_no_lack_of_the_machine(error: Exception) -> None:
    assert of_environment(error) is None
