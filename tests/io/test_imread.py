"""Volumes survive the disk in every format, and a file that cannot be used is named in one line."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest

from deepem.io import formats
from deepem.io.files import imread, imsave
from deepem.utils.errors import InputError

EVERY = [".h5", ".hdf5", ".hdf", ".tif", ".tiff", ".zarr", ".npy"]
VOLUME = np.arange(3 * 5 * 7, dtype=np.int32).reshape(3, 5, 7)


@pytest.mark.parametrize("suffix", EVERY)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64", "float32", ">u2"])
def test_a_volume_comes_back_as_it_was(tmp_path, suffix, dtype):
    array = VOLUME.astype(dtype)
    imsave(array, tmp_path / f"v{suffix}")
    back = imread(tmp_path / f"v{suffix}")
    assert back.dtype == np.dtype(dtype).newbyteorder("=")
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("suffix", EVERY)
@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 3, 4, 5), (6, 5, 3), (6, 5, 4)])
def test_axes_stay_where_they_are(tmp_path, suffix, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    imsave(array, tmp_path / f"v{suffix}", compress=True)
    np.testing.assert_array_equal(imread(tmp_path / f"v{suffix}").reshape(shape), array)


@pytest.mark.parametrize("suffix", [".h5", ".hdf", ".zarr"])
def test_a_dataset_inside_a_file(tmp_path, suffix):
    path = f"{tmp_path}/a:b/v{suffix}:volumes/raw"
    imsave(VOLUME, path)
    np.testing.assert_array_equal(imread(path), VOLUME)
    with pytest.raises(InputError, match=r"no dataset 'main'.*volumes/raw"):
        imread(f"{tmp_path}/a:b/v{suffix}")
    with pytest.raises(InputError, match="not added"):
        imsave(VOLUME, path)


def test_booleans_are_stored_as_masks(tmp_path):
    imsave(VOLUME > 3, tmp_path / "m.h5")
    back = imread(tmp_path / "m.h5")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, VOLUME > 3)


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_of_zarr(tmp_path, version):
    import zarr

    store = zarr.create_array(
        str(tmp_path / "v.zarr"), shape=VOLUME.shape, dtype="int32", chunks=(2, 2, 2), zarr_format=version
    )
    store[...] = VOLUME
    np.testing.assert_array_equal(imread(tmp_path / "v.zarr"), VOLUME)
    with pytest.raises(InputError, match="no dataset 'raw'"):
        imread(f"{tmp_path}/v.zarr:raw")


@pytest.mark.parametrize("suffix", EVERY)
def test_what_is_not_there_is_named(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match="gone") as error:
        imread(tmp_path / f"gone{suffix}")
    assert error.value.filename == str(tmp_path / f"gone{suffix}")


@pytest.mark.parametrize("suffix", [".h5", ".tif", ".npy"])
@pytest.mark.parametrize("keep", [0, 20, 5000])
def test_a_truncated_file_is_one_line(tmp_path, suffix, keep):
    path = tmp_path / f"v{suffix}"
    imsave(np.random.default_rng(0).integers(0, 255, (20, 30, 40), dtype=np.uint8), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError) as error:
        imread(path)
    assert str(error.value).startswith(f"{path}: got ")
    assert "\n" not in str(error.value)


def test_damage_inside_hdf5_is_one_line(tmp_path):
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as top:
        noise = np.random.default_rng(0).random((40, 40, 40))
        top.create_dataset("main", data=noise, chunks=True, fletcher32=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="cannot be read"):
        imread(path)


def test_a_damaged_zarr_is_one_line(tmp_path):
    imsave(VOLUME, tmp_path / "v.zarr")
    (tmp_path / "v.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"v\.zarr"):
        imread(tmp_path / "v.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"empty\.zarr"):
        imread(tmp_path / "empty.zarr")


def test_an_unknown_suffix_lists_the_known(tmp_path):
    for act in (lambda p: imread(p), lambda p: imsave(VOLUME, p)):
        with pytest.raises(InputError, match=r"\.raw.*\.h5.*\.tif.*\.zarr.*\.npy"):
            act(tmp_path / "v.raw")


@pytest.mark.parametrize("suffix", EVERY)
def test_saving_is_whole_or_not_at_all(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"v{suffix}"
    imsave(VOLUME, path)
    imsave(VOLUME + 1, path)
    np.testing.assert_array_equal(imread(path), VOLUME + 1)

    def broken(file, *rest):
        write(file, *rest)
        raise OSError("disk full")

    row = formats.format_of(path)
    write = row.write
    table = tuple(dataclasses.replace(one, write=broken) if one is row else one for one in formats.FORMATS)
    monkeypatch.setattr(formats, "FORMATS", table)
    with pytest.raises(OSError, match="disk full"):
        imsave(VOLUME + 2, path)
    np.testing.assert_array_equal(imread(path), VOLUME + 1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_unreadable_array_of_python_objects_is_not_run(tmp_path):
    np.save(tmp_path / "v.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"v\.npy"):
        imread(tmp_path / "v.npy")
