"""TIFF files that lie: several series, cut short, colours, channels in odd places."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from deepem.io.files import imread, opened
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

SIZE = (12, 20, 30)
IMAGE = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


def lazily(path):
    with opened(path) as stored:
        assert stored.info
        return stored.read(Box((0, 0, 0), stored.size))


def refused(path):
    """The line with which a file is refused, whole and lazily alike."""
    with pytest.raises(InputError) as whole:
        imread(path)
    with pytest.raises(InputError) as lazy:
        lazily(path)
    assert str(whole.value) == str(lazy.value)
    assert str(whole.value).startswith(f"{path}: got ")
    return str(whole.value)


@pytest.mark.parametrize("cuts", [(8,), (3, 4, 9), range(1, 12)])
@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"metadata": None}])
def test_a_stack_written_in_several_calls_is_one_stack(tmp_path, cuts, how):
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        for block in np.split(IMAGE, list(cuts)):
            writer.write(block if len(block) > 1 else block[0], photometric="minisblack", **how)
    np.testing.assert_array_equal(imread(tmp_path / "v.tif"), IMAGE)
    for box in (Box((0, 0, 0), SIZE), Box((2, 3, 4), (11, 15, 20)), Box((8, 0, 0), (9, 20, 30))):
        with opened(tmp_path / "v.tif") as stored:
            np.testing.assert_array_equal(stored.read(box)[0], IMAGE[box.slices()])


def test_series_that_are_no_blocks_of_a_stack_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        writer.write(IMAGE, photometric="minisblack")
        writer.write(IMAGE[:, ::2, ::2], photometric="minisblack")
    assert "2 series, of shapes (12, 20, 30), (12, 10, 15)" in refused(tmp_path / "v.tif")
    with tifffile.TiffWriter(tmp_path / "two.ome.tif") as writer:
        for _ in range(2):  # two images, such as two fields of view
            writer.write(IMAGE, photometric="minisblack", metadata={"axes": "ZYX"})
    assert "2 series" in refused(tmp_path / "two.ome.tif")


def as_libtiff(path, compression, bigtiff, order="<"):
    """Each page's data, then its directory: cut short, the rest looks like a shorter stack."""
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=order) as writer:
        for section in IMAGE:
            writer.write(section, photometric="minisblack", compression=compression, metadata=None)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.99])
def test_a_file_cut_short_is_no_shorter_stack(tmp_path, compression, bigtiff, order, share):
    path = tmp_path / "v.tif"
    as_libtiff(path, compression, bigtiff, order)
    np.testing.assert_array_equal(imread(path), IMAGE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("how", [{}, {"imagej": True, "metadata": {"axes": "ZYX"}}, {"compression": "zlib"}])
def test_so_are_files_as_tifffile_and_imagej_write_them(tmp_path, how):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, IMAGE, photometric="minisblack", **how)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.7)])
    assert "cut short" in refused(path)


def test_one_directory_for_a_whole_stack_is_measured_by_its_data(tmp_path):
    """ImageJ writes stacks of more than 4 GB so: one page, the sections behind it."""
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, IMAGE, photometric="minisblack", imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        end = file.series[0].dataoffset + IMAGE.nbytes
        pointer = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
    content = bytearray(path.read_bytes()[:end])
    content[pointer : pointer + 4] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(imread(path), IMAGE)
    path.write_bytes(content[:-100])
    assert "cut short" in refused(path)


@pytest.mark.parametrize(
    ("shape", "how", "told"),
    [
        ((12, 20, 30, 3), {"photometric": "rgb"}, "shape (12, 20, 30, 3), axes QYXS: colours, wants grey values"),
        ((20, 30, 4), {"photometric": "rgb"}, "shape (20, 30, 4), axes YXS: colours, wants grey values"),
        ((6, 2, 20, 30), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "shape (6, 2, 20, 30), axes ZCYX, wants"),
        ((2, 6, 2, 20, 30), {"imagej": True, "metadata": {"axes": "TZCYX"}}, "shape (2, 6, 2, 20, 30), axes TZCYX"),
        ((12, 20, 30, 3), {"photometric": "minisblack"}, "shape (12, 20, 30, 3), channels last, wants (C, Z, Y, X)"),
    ],
)
def test_shape_and_axes_of_what_is_no_stack_are_told(tmp_path, shape, how, told):
    tifffile.imwrite(tmp_path / "v.tif", np.zeros(shape, np.uint8), **how)
    assert told in refused(tmp_path / "v.tif")


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX", "CZYX", "TZYX"])
def test_hyperstacks_of_one_channel_or_with_channels_in_front_are_read(tmp_path, axes):
    shape = (12, 20, 30) if len(axes) == 3 else (2, 6, 20, 30)
    metadata = {"axes": axes}
    tifffile.imwrite(tmp_path / "v.ome.tif", IMAGE.reshape(shape), photometric="minisblack", metadata=metadata)
    np.testing.assert_array_equal(imread(tmp_path / "v.ome.tif"), IMAGE.reshape(shape))
    with opened(tmp_path / "v.ome.tif") as stored:
        box = Box((1, 2, 3), (5, 9, 20))
        found = IMAGE.reshape(-1, *shape[-3:])[(slice(None), *box.slices())]
        np.testing.assert_array_equal(stored.read(box), found)


def test_a_file_without_a_page_is_refused(tmp_path):
    tifffile.TiffWriter(tmp_path / "v.tif").close()
    assert "no page" in refused(tmp_path / "v.tif")


@pytest.mark.parametrize("read", [imread, lazily])
def test_a_compression_that_needs_a_package_says_which(tmp_path, monkeypatch, read):
    tifffile.imwrite(tmp_path / "v.tif", IMAGE, photometric="minisblack")

    def decode(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    for kind in (tifffile.TiffPage, tifffile.TiffFrame, tifffile.TiffPageSeries):
        monkeypatch.setattr(kind, "asarray", decode)
    with pytest.raises(InputError, match=r"the package imagecodecs, wants pip install 'deepem\[tiff\]'"):
        read(tmp_path / "v.tif")
