"""A disk that fills up while HDF5 writes is an error where it is met, and never a crash."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from deepem.io.files import imread, imsave
from deepem.io.hdf5_writing import new_hdf5
from deepem.io.sink import Hdf5Sink
from deepem.utils.geometry import Box

WRITES = """
import sys
import numpy as np
from pathlib import Path
from deepem.cli.one_line import one_line_errors
from deepem.io.sink import Hdf5Sink
from deepem.utils.geometry import Box

box = Box((0, 0, 0), (8, 64, 64))
with one_line_errors("p"), Hdf5Sink({"a": Path("a.h5")}, {"a": 3}, box) as sink:
    for z in range(8):
        sink.write(Box((z, 0, 0), (z + 1, 64, 64)), {"a": np.ones((3, 1, 64, 64), np.float32)})
"""


@pytest.mark.parametrize("limit", [0, 100, 3000, 200_000, 390_000])
def test_a_limit_on_the_size_of_a_file_is_one_line(tmp_path, verb_env, limit):
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-c", WRITES], env=verb_env, cwd=tmp_path, preexec_fn=limited, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, "p: error: a.h5: got a full disk, wants room for the output\n")
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_box_by_box_is_read_back(tmp_path):
    whole = np.random.default_rng(0).random((2, 4, 6, 8), np.float32)
    with Hdf5Sink({"a": tmp_path / "a.h5"}, {"a": 2}, Box((0, 0, 0), (4, 6, 8))) as sink:
        for begin, end in (((0, 0, 0), (4, 6, 3)), ((0, 0, 3), (4, 2, 8)), ((0, 2, 3), (4, 6, 8))):
            box = Box(begin, end)
            sink.write(box, {"a": whole[(slice(None), *box.slices())]})
    assert np.array_equal(imread(tmp_path / "a.h5"), whole)
    imsave(whole, tmp_path / "b.h5", compress=True)
    assert np.array_equal(imread(tmp_path / "b.h5"), whole)


def test_the_first_error_is_the_one_that_is_told(tmp_path):
    def write():
        with new_hdf5(tmp_path / "a.h5") as (top, outlet):
            outlet.error = OSError("the first")
            top["main"] = np.ones(100_000)

    with pytest.raises(OSError, match="the first"):
        write()


def test_outputs_side_by_side_are_all_there(tmp_path):
    box = Box((0, 0, 0), (2, 3, 4))
    paths = {name: tmp_path / f"{name}.h5" for name in "abc"}
    with Hdf5Sink(paths, dict.fromkeys(paths, 1), box) as sink:
        sink.write(box, {name: np.full((1, 2, 3, 4), i, np.float32) for i, name in enumerate(paths)})
    assert [int(imread(path).max()) for path in paths.values()] == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "c.h5"]
