"""Input files: a part that cannot be read is named as narrowly as the format allows."""

import h5py
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr

from deepem.io.files import opened_image
from deepem.io.stored import Stored
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

SIZE = (10, 20, 30)
IMAGE = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)
WHOLE = Box((0, 0, 0), SIZE)


def refused(path, box=WHOLE):
    with opened_image(path) as source, pytest.raises(InputError) as caught:
        source.read(box)
    with opened_image(path) as source:  # what lies elsewhere can be read
        np.testing.assert_array_equal(source.read(Box((0, 0, 0), (4, 8, 10)))[0], IMAGE[:4, :8, :10])
    return str(caught.value)


def test_a_damaged_hdf5_chunk_is_named_with_file_dataset_and_box(tmp_path):
    with h5py.File(tmp_path / "img.h5", "w") as file:
        data = file.create_dataset("volumes/raw", data=IMAGE, chunks=(4, 8, 10), compression="gzip")
        where = data.id.get_chunk_info_by_coord((4, 8, 20))
    with open(tmp_path / "img.h5", "r+b") as file:
        file.seek(where.byte_offset + 10)
        file.write(bytes(40))
    line = refused(f"{tmp_path}/img.h5:volumes/raw", Box((2, 3, 4), (9, 19, 29)))
    assert line.startswith(f"{tmp_path}/img.h5:volumes/raw: got unreadable voxels (4, 8, 20) to (8, 16, 30) (")


@pytest.mark.parametrize("damage", ["cut short", "empty", "nonsense"])
@pytest.mark.parametrize(("version", "file"), [(2, "main/1.1.2"), (3, "main/c/1/1/2")])
def test_a_damaged_zarr_chunk_is_named_with_its_file(tmp_path, damage, version, file):
    top = zarr.open_group(tmp_path / "img.zarr", mode="w", zarr_format=version)
    codec = {"compressors": numcodecs.Blosc()} if version == 2 else {}
    top.create_array("main", shape=SIZE, chunks=(4, 8, 10), dtype="uint8", **codec)[:] = IMAGE
    chunk = tmp_path / "img.zarr" / file
    held = chunk.read_bytes()
    chunk.write_bytes({"cut short": held[:-9], "empty": b"", "nonsense": b"nothing" * 30}[damage])
    line = refused(tmp_path / "img.zarr")
    assert line.startswith(f"{tmp_path}/img.zarr:main: got unreadable voxels (4, 8, 20) to (8, 16, 30), file {file} (")


def test_a_damaged_tiff_page_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "img.tif", IMAGE, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "img.tif") as file:
        offset = file.pages[6].dataoffsets[0]
    with open(tmp_path / "img.tif", "r+b") as file:
        file.seek(offset)
        file.write(bytes(40))
    assert "unreadable voxels (6, 0, 0) to (7, 20, 30)" in refused(tmp_path / "img.tif")


@pytest.mark.parametrize("held", ["[[0, 0, 1], [0, 2, 0]]", b"[[0, 0, 1], [0, 2, 0]]", [[0, 0, 1], [0, 2, 0]]])
def test_edges_are_read_from_a_list_or_its_json(held):
    assert Stored("a", np.zeros((2, 1, 4, 4)), {"edges": held}).edges == ((0, 0, 1), (0, 2, 0))


def test_a_file_without_edges_has_none():
    assert Stored("a", np.zeros((1, 4, 4))).edges == ()
    assert Stored("a", np.zeros((1, 4, 4)), {"edges": np.zeros((0, 3), int)}).edges == ()


@pytest.mark.parametrize(
    "held", ["x", 5, [0, 0, 1], [[0, 0, 0]], [[0, 0, 129]], [[0, 1]], [[0.5, 0, 1]], np.array([0, 0, 1])]
)
def test_what_is_no_edge_is_refused(held):
    with pytest.raises(InputError, match=r"^a: got edge.*, wants edges \[\[z, y, x\]"):
        _ = Stored("a:main", np.zeros((1, 1, 4, 4)), {"edges": held}).edges
