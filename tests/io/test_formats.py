"""The table of formats: a new one is one file and one line, and everybody who opens a volume knows it."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest

from deepem.data.emio import imread, imsave, load_files
from deepem.io import formats
from deepem.io.files import opened, opened_image
from deepem.utils.errors import InputError, told_as
from deepem.utils.geometry import Box

IMAGE = np.random.default_rng(0).integers(0, 256, (7, 20, 30), np.uint8)

RAW = '''"""Raw bytes behind a line that says their shape: what a lab's own format might be."""

from contextlib import contextmanager

import numpy as np

from deepem.io.format import Format
from deepem.io.stored import Stored


@contextmanager
def _open(file, key):
    with open(file, "rb") as handle:
        shape = tuple(map(int, handle.readline().split()))
        yield Stored(file, np.memmap(handle, np.uint8, "r", handle.tell(), shape))


def _write(file, key, array, compress, attributes):
    with open(file, "wb") as handle:
        handle.write(" ".join(map(str, array.shape)).encode() + b"\\n" + array.astype(np.uint8).tobytes())


RAW = Format("raw", (".raw",), _open, _write)
'''


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """The format as one file, and its line in the table."""
    (tmp_path / "raw_format.py").write_text(RAW)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "raw_format", raising=False)
    import raw_format

    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, raw_format.RAW))


def test_a_new_format_is_read_by_training_and_by_prediction(raw, tmp_path):
    with pytest.raises(InputError, match=r"the suffix '.bin'.*\.raw"):
        imread(tmp_path / "v.bin")
    imsave(IMAGE, tmp_path / "v.raw")
    np.testing.assert_array_equal(imread(tmp_path / "v.raw"), IMAGE)
    (volume,) = load_files({"a": {"img": "v.raw"}}, tmp_path).values()
    np.testing.assert_array_equal(volume["img"], IMAGE)
    box = Box((1, 2, 3), (6, 15, 20))
    with opened_image(tmp_path / "v.raw") as source:
        np.testing.assert_array_equal(source.read(box)[0], IMAGE[box.slices()])


SUFFIXES = [suffix for row in formats.FORMATS for suffix in row.suffixes]


@pytest.mark.parametrize("where", [*(f"v{suffix}" for suffix in SUFFIXES), "v.h5:volumes/raw", "v.zarr:volumes/raw"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_box_is_the_same_voxels_in_every_format(tmp_path, where, channels):
    array = IMAGE if channels == 1 else np.stack([IMAGE, 255 - IMAGE])
    imsave(array, f"{tmp_path}/{where}")
    box = Box((1, 2, 3), (6, 15, 20))
    with opened(f"{tmp_path}/{where}") as stored:
        found = stored.read(box)
        assert (stored.info.size, stored.info.channels, stored.info.dtype) == (IMAGE.shape, channels, np.uint8)
    assert found.shape == (channels, *box.size)
    np.testing.assert_array_equal(found, np.asarray(array).reshape(channels, *IMAGE.shape)[(..., *box.slices())])


def test_a_volume_behind_cloud_volume_is_one_more_format(tmp_path):
    pytest.importorskip("cloudvolume")
    path = f"file://{tmp_path}/v"
    imsave(IMAGE, path, attributes={"voxel_size_nm": (40, 3.58, 3.58), "offset": (5, -20, 10)})
    np.testing.assert_array_equal(imread(path), IMAGE)
    (volume,) = load_files({"a": {"img": path}}, tmp_path / "elsewhere").values()
    np.testing.assert_array_equal(volume["img"], IMAGE)
    with opened_image(path) as source:
        assert (source.voxel_size_nm, source.info.offset) == ((40.0, 3.58, 3.58), (5, -20, 10))
        assert source.info.bounds == Box.of_size((5, -20, 10), IMAGE.shape)
        np.testing.assert_array_equal(source.read(Box((1, 2, 3), (2, 9, 8)))[0], IMAGE[1:2, 2:9, 3:8])


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_what_a_file_says_about_itself_is_what_was_written(tmp_path, suffix):
    told = {"axes": "zyx", "voxel_size_nm": np.array([40, 3.58, 3.58]), "offset": np.array([5, -20, 10])}
    imsave(IMAGE, tmp_path / f"v{suffix}", attributes=told)
    with opened(tmp_path / f"v{suffix}") as stored:
        assert (stored.info.voxel_size_nm, stored.info.offset) == ((40.0, 3.58, 3.58), (5, -20, 10))


@pytest.mark.parametrize("told", ["x", [1, 2], [1, 2, np.nan], "4,4,40"])
def test_attributes_that_are_no_three_numbers_are_as_if_not_there(tmp_path, told):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["main"] = IMAGE
        file["main"].attrs["voxel_size_nm"] = file["main"].attrs["offset"] = told
    with opened(tmp_path / "v.h5") as stored:
        assert (stored.info.voxel_size_nm, stored.info.offset) == (None, (0, 0, 0))


def test_only_grey_values_are_an_image(tmp_path):
    imsave(IMAGE.astype(np.int32), tmp_path / "seg.h5")
    with opened(tmp_path / "seg.h5") as stored:
        assert stored.read(Box((0, 0, 0), (1, 1, 1))).dtype == np.int32
    with pytest.raises(InputError, match="an image of int32"), opened_image(tmp_path / "seg.h5"):
        pass


@pytest.mark.parametrize(("where", "told"), [("mip", "--in_mip"), ("a.h5", "a.h5")])
def test_a_caller_gives_parameters_the_names_that_its_user_knows(where, told):
    with pytest.raises(InputError, match=f"^{told}: got 3, wants 0 to 2$"), told_as({"mip": "--in_mip"}):
        raise InputError(where, 3, "0 to 2")
