"""numpy files that are something else inside."""

from __future__ import annotations

import numpy as np
import pytest

from deepem.io.files import imread, opened
from deepem.utils.errors import InputError

HEADER = (
    b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 64, 64), }".ljust(117) + b"\n"
)


def lazily(path):
    with opened(path) as stored:
        return stored.info


@pytest.mark.parametrize("read", [imread, lazily])
def test_what_is_no_single_array_is_one_line(tmp_path, read):
    with open(tmp_path / "a.npy", "wb") as file:
        np.savez(file, main=np.ones((2, 3, 4)))
    with pytest.raises(InputError, match=r"a\.npy: got an archive of the arrays main \(npz\), wants one array"):
        read(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(HEADER + bytes(8192))
    with pytest.raises(InputError, match=r"b\.npy: got "):
        read(tmp_path / "b.npy")
