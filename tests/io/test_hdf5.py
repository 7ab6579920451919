"""HDF5 files that lie, or that cannot be opened as they are."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from deepem.io.files import imread, imsave, opened
from deepem.io.sink import Hdf5Sink
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

SIZE = (12, 20, 30)
WHOLE = Box((0, 0, 0), SIZE)
IMAGE = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)


def lazily(path):
    with opened(path) as stored:
        return stored.read(WHOLE)[0]


both = pytest.mark.parametrize("read", [imread, lazily])


def virtual(folder):
    """A dataset made of two files."""
    layout = h5py.VirtualLayout(SIZE, np.uint8)
    for part in range(2):
        with h5py.File(folder / f"part{part}.h5", "w") as file:
            file["main"] = IMAGE[6 * part : 6 * part + 6]
        layout[6 * part : 6 * part + 6] = h5py.VirtualSource(f"part{part}.h5", "main", shape=(6, *SIZE[1:]))
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_virtual_dataset("main", layout)
    return folder / "v.h5"


@both
def test_a_virtual_dataset_is_read_if_all_its_files_are_there(tmp_path, monkeypatch, read):
    path = virtual(tmp_path)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(read(path), IMAGE)
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(InputError, match=r"v\.h5:main: got a virtual dataset without its file part1\.h5, wants all"):
        read(path)


def relayed(folder):
    """A virtual dataset whose source is the virtual dataset of two files."""
    virtual(folder)
    layout = h5py.VirtualLayout(SIZE, np.uint8)
    layout[:] = h5py.VirtualSource("v.h5", "main", shape=SIZE)
    with h5py.File(folder / "relay.h5", "w") as file:
        file.create_virtual_dataset("main", layout)
    return folder / "relay.h5"


def rewritten(path, **arrays):
    path.unlink()
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


@both
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda part: part.unlink(), r"part1\.h5, wants"),
        (lambda part: rewritten(part, other=IMAGE), r"part1\.h5:main, wants"),
        (lambda part: rewritten(part, main=IMAGE[:3]), r"part1\.h5:main \(a part of \(3, 20, 30\) only\)"),
        (lambda part: part.write_bytes(part.read_bytes()[:700]), r"part1\.h5 \(OSError"),
    ],
)
def test_a_source_that_lacks_its_part_is_named_at_any_depth(tmp_path, read, change, told):
    path = relayed(tmp_path)
    np.testing.assert_array_equal(read(path), IMAGE)
    change(tmp_path / "part1.h5")
    for dataset in (path, tmp_path / "v.h5"):
        with pytest.raises(InputError, match=f"{dataset.name}:main: got a virtual dataset without its file {told}"):
            read(dataset)


@both
def test_a_numbered_series_of_files_has_no_hole(tmp_path, read):
    for number in range(3):
        with h5py.File(tmp_path / f"part{number}.h5", "w") as file:
            file["main"] = IMAGE[4 * number : 4 * number + 4]
    with h5py.File(tmp_path / "v.h5", "w") as file:
        space = h5py.h5s.create_simple(SIZE, (h5py.h5s.UNLIMITED, *SIZE[1:]))
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (4, 1, 1), (4, *SIZE[1:]))
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_virtual(space, b"part%b.h5", b"main", h5py.h5s.create_simple((4, *SIZE[1:])))
        h5py.h5d.create(file.id, b"main", h5py.h5t.NATIVE_UINT8, space, plan)
    np.testing.assert_array_equal(read(tmp_path / "v.h5"), IMAGE)
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(InputError, match=r"without its file part1\.h5"):
        read(tmp_path / "v.h5")


@both
def test_raw_data_beside_the_file_are_whole(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "em.raw").write_bytes(IMAGE.tobytes())
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("main", SIZE, "u1", external=[("em.raw", 0, IMAGE.nbytes)])
    np.testing.assert_array_equal(read(tmp_path / "v.h5"), IMAGE)
    (tmp_path / "em.raw").write_bytes(IMAGE.tobytes()[:-100])
    with pytest.raises(InputError, match=r"got raw data in em\.raw, which has 7100 bytes, wants 7200 bytes"):
        read(tmp_path / "v.h5")


@both
def test_a_source_within_the_file_itself_is_there(tmp_path, read):
    layout = h5py.VirtualLayout(SIZE, np.uint8)
    layout[:] = h5py.VirtualSource(".", "raw", shape=SIZE)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = IMAGE
        file.create_virtual_dataset("main", layout)
    np.testing.assert_array_equal(read(tmp_path / "v.h5"), IMAGE)


@both
def test_a_file_that_another_program_holds_says_what_to_do(tmp_path, read):
    imsave(IMAGE, tmp_path / "v.h5")
    hold = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path / "v.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=r"another program holds open, wants.*HDF5_USE_FILE_LOCKING=FALSE"):
            read(tmp_path / "v.h5")
        other.stdin.close()
    np.testing.assert_array_equal(read(tmp_path / "v.h5"), IMAGE)


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    """A file system without locks."""
    real = h5py.File

    def open_file(*args, locking=None, **options):
        if locking is not False:
            raise OSError(request.param, os.strerror(request.param))
        return real(*args, locking=locking, **options)

    monkeypatch.setattr(h5py, "File", open_file)


def test_a_file_system_without_locks_is_read_and_written(tmp_path, no_locks):
    imsave(IMAGE, tmp_path / "v.h5")
    np.testing.assert_array_equal(imread(tmp_path / "v.h5"), IMAGE)
    np.testing.assert_array_equal(lazily(tmp_path / "v.h5"), IMAGE)
    with Hdf5Sink({"a": tmp_path / "out.h5"}, {"a": 1}, WHOLE) as sink:
        sink.write(WHOLE, {"a": IMAGE[None].astype(np.float32)})
    np.testing.assert_array_equal(imread(tmp_path / "out.h5")[0], IMAGE)


@both
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda file: file.create_dataset("main", data=h5py.Empty("u1")), "a dataset without data"),
        (lambda file: file.__setitem__("main", h5py.SoftLink("/main")), "no dataset|cannot be read"),
        (
            lambda file: file.__setitem__("main", h5py.ExternalLink("gone.h5", "/main")),
            "a link to /main in gone.h5, which",
        ),
        (lambda file: file.__setitem__("main", h5py.SoftLink("/gone")), "a link to /gone, which is not there"),
        (lambda file: file.create_group("main"), "no dataset 'main'"),
        (lambda file: file.create_dataset("a/b", data=IMAGE), "that is there: a/b"),
        (lambda file: file.create_dataset("main", data=3), "shape"),
        (lambda file: file.create_dataset("main", data=np.moveaxis(np.stack([IMAGE] * 3), 0, -1)), "channels last"),
    ],
)
def test_what_is_no_volume_is_one_line(tmp_path, read, make, told):
    if read is imread and told == "shape":
        pytest.skip("imread takes arrays of any shape")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        make(file)
    with pytest.raises(InputError, match=f"v.h5.*{told}"):
        read(tmp_path / "v.h5")


def whole(path):
    with opened(path) as stored:
        return stored.read(Box((0, 0, 0), stored.size))


@pytest.mark.parametrize("read", [imread, whole])
def test_more_than_memory_is_one_line(tmp_path, read):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("main", (2**30, 2**20, 30), "u8", chunks=(1, 20, 30))
    with pytest.raises(InputError, match=r"v\.h5.*memory"):
        read(tmp_path / "v.h5")


@both
@pytest.mark.parametrize("suffix", [".h5", ".tif", ".npy", ".zarr"])
def test_a_pipe_is_not_waited_for(tmp_path, read, suffix):
    os.mkfifo(tmp_path / f"v{suffix}")
    with pytest.raises(InputError, match=f"v{suffix}: got a pipe"):
        read(tmp_path / f"v{suffix}")


@both
@pytest.mark.parametrize("suffix", [".h5", ".tif", ".npy"])
def test_a_folder_is_no_file(tmp_path, read, suffix):
    (tmp_path / f"v{suffix}").mkdir()
    with pytest.raises(InputError, match=f"v{suffix}"):
        read(tmp_path / f"v{suffix}")
