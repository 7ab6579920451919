"""zarr: groups of levels, chunks that are absent or lie under other names, and an absent or older package."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import zarr

from deepem.data.emio import load_files
from deepem.io.files import imread, opened, opened_image
from deepem.io.zarr import Zarr
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

SIZE = (8, 20, 30)
WHOLE = Box((0, 0, 0), SIZE)
IMAGE = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)


def lazily(path):
    with opened(path) as stored:
        return stored.read(Box((0, 0, 0), stored.size)).reshape(stored.data.shape)


both = pytest.mark.parametrize("read", [imread, lazily])
versions = pytest.mark.parametrize("version", [2, 3])


def image_group(path, version, axes="zyx", told=True):
    """An OME-NGFF image of two levels."""
    top = zarr.open_group(path, mode="w", zarr_format=version)
    lead = (None,) * (len(axes) - 3)
    levels = []
    for level in range(2):
        array = IMAGE[(*lead, slice(None), slice(None, None, 2**level), slice(None, None, 2**level))]
        top.create_array(str(level), shape=array.shape, chunks=array.shape, dtype="u1")[:] = array
        scale = [1.0] * len(lead) + [0.04, 0.00358 * 2**level, 0.00358 * 2**level]
        levels.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = [{"name": a, "type": "space", "unit": "micrometer"} if a in "zyx" else {"name": a} for a in axes]
    image = {"multiscales": [{"axes": kinds, "datasets": levels}]}
    if told:
        top.attrs.update(image if version == 2 else {"ome": image})
    return path


@both
@versions
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx"])
def test_an_image_of_levels_opens_at_the_finest_or_at_the_one_asked_for(tmp_path, read, version, axes):
    path = image_group(tmp_path / "v.ome.zarr", version, axes)
    np.testing.assert_array_equal(read(path).reshape(SIZE), IMAGE)
    np.testing.assert_array_equal(read(f"{path}:1").reshape(8, 10, 15), IMAGE[:, ::2, ::2])
    with opened_image(f"{path}:1") as source:
        np.testing.assert_allclose(source.voxel_size_nm, (40, 7.16, 7.16))
        assert source.channels == 1


@versions
def test_a_scale_of_the_whole_image_multiplies_that_of_its_levels(tmp_path, version):
    path = image_group(tmp_path / "v.ome.zarr", version, "czyx")
    top = zarr.open_group(path, mode="r+")
    given = dict(top.attrs)
    image = given.get("ome", given)
    image["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1, 2, 3, 0.5]}]
    top.attrs.update(given)
    with opened_image(f"{path}:1") as source:
        np.testing.assert_allclose(source.voxel_size_nm, (80, 21.48, 3.58))


@both
@versions
def test_a_group_that_is_no_image_lists_its_arrays(tmp_path, read, version):
    path = image_group(tmp_path / "v.zarr", version, told=False)
    with pytest.raises(InputError, match=r"no dataset 'main', wants .*that is there: 0, 1"):
        read(path)
    with pytest.raises(InputError, match=r"no dataset '7', wants .*that is there: 0, 1"):
        read(f"{path}:7")


@both
def test_an_image_of_other_axes_is_refused(tmp_path, read):
    path = image_group(tmp_path / "v.zarr", 2)
    top = zarr.open_group(path, mode="r+")
    image = top.attrs["multiscales"]
    image[0]["axes"] = [{"name": name} for name in "xyz"]
    top.attrs["multiscales"] = image
    with pytest.raises(InputError, match="the axes x, y, z, wants axes that end with z, y, x"):
        read(path)


def chunked(path, version, **options):
    array = zarr.create_array(
        str(path), shape=SIZE, chunks=(4, 10, 15), dtype="u1", zarr_format=version, fill_value=0, **options
    )
    array[:] = IMAGE
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in ("zarr.json", ".zarray", ".zattrs"))


@both
@versions
def test_an_absent_chunk_is_the_fill_value_and_told_once(tmp_path, capsys, read, version):
    files = chunked(tmp_path / "v.zarr", version)
    for file in files[:2]:  # the two blocks along x of the first corner
        file.unlink()
    wanted = IMAGE.copy()
    wanted[:4, :10] = 0
    np.testing.assert_array_equal(read(tmp_path / "v.zarr"), wanted)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}/v.zarr: 2 chunks are absent and read as the fill value")


def test_training_is_told_of_images_and_labels_and_not_of_masks(tmp_path, capsys):
    for name in ("img", "seg", "msk", "seg_msk"):
        chunked(tmp_path / f"{name}.zarr", 3)[0].unlink()
    row = {name: f"{name}.zarr" for name in ("img", "seg", "msk", "seg_msk")}
    load_files({"a": row}, tmp_path, labels=["seg"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, ("img", "seg"), strict=True):
        assert line.startswith(f"warning: {tmp_path}/{name}.zarr: 1 chunk is absent")


@both
@pytest.mark.parametrize("written", ["/", "."])
def test_chunks_under_other_names_are_no_empty_volume(tmp_path, read, written):
    """Metadata that name another separator than the files have: zarr finds no chunk and reads zeros."""
    other = {"/": ".", ".": "/"}[written]
    encoding = {"name": "v2", "separator": written}
    chunked(tmp_path / "v.zarr", 2, chunk_key_encoding=encoding)
    np.testing.assert_array_equal(read(tmp_path / "v.zarr"), IMAGE)
    told = json.loads((tmp_path / "v.zarr/.zarray").read_text())
    (tmp_path / "v.zarr/.zarray").write_text(json.dumps({**told, "dimension_separator": other}))
    with pytest.raises(InputError, match=r"no chunk, but files such as \d[./]\d[./]\d, wants chunks named like 0"):
        read(tmp_path / "v.zarr")


@both
def test_a_volume_that_was_never_written_is_its_fill_value(tmp_path, capsys, read):
    zarr.create_array(str(tmp_path / "v.zarr"), shape=SIZE, chunks=(4, 10, 15), dtype="u1", fill_value=7)
    assert (read(tmp_path / "v.zarr") == 7).all()
    assert "8 chunks are absent" in capsys.readouterr().err


def test_a_box_looks_at_its_own_chunks_alone(tmp_path, capsys):
    chunked(tmp_path / "v.zarr", 3)[0].unlink()
    with opened(tmp_path / "v.zarr") as stored:
        stored.read(Box((4, 0, 0), SIZE))
    assert capsys.readouterr().err == ""


@both
def test_a_missing_package_says_how_to_install_it(tmp_path, monkeypatch, read):
    chunked(tmp_path / "v.zarr", 3)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match=r"v\.zarr: got .*the package zarr, wants pip install 'deepem\[zarr\]'"):
        read(tmp_path / "v.zarr")


class OlderArray:
    """An array as zarr 2, which Python 3.10 has, gives it."""

    path, dtype, shape, chunks, compressor = "", np.dtype("u1"), SIZE, (4, 20, 30), None

    def __init__(self, separator):
        self.separator = separator

    def _chunk_key(self, index):
        return self.separator.join(map(str, index))

    def __getitem__(self, where):
        return IMAGE[where]


def test_chunks_of_zarr_2_are_looked_for_too(tmp_path):
    for name in ("0.0.0", "1.0.0"):
        (tmp_path / name).write_bytes(b"x")
    array = Zarr(OlderArray("."), tmp_path)
    np.testing.assert_array_equal(array[...], IMAGE)
    assert not array.absent
    (tmp_path / "1.0.0").unlink()
    np.testing.assert_array_equal(array[..., 5:8, 0:20, 0:30], IMAGE[5:8])
    assert array.absent == {"1.0.0"}
    with pytest.raises(InputError, match=r"no chunk, but files such as 0\.0\.0, wants chunks named like 0/0/0"):
        Zarr(OlderArray("/"), tmp_path)[...]


def test_format_3_asks_for_zarr_3(tmp_path, monkeypatch):
    zarr.create_array(tmp_path / "v.zarr", data=IMAGE, zarr_format=3)
    monkeypatch.setattr(zarr, "__version__", "2.18.3")
    with pytest.raises(InputError, match=r"got zarr format 3, and zarr 2\.18\.3, wants zarr 3 \(Python 3\.11\)"):
        imread(tmp_path / "v.zarr")
