"""Faults that readers and writers of comparable programs had."""

from __future__ import annotations

import numpy as np
import pytest

from deepem.io.cloud_sink import Layout, fits, make_volume
from deepem.io.files import imread, imsave
from deepem.io.lazy import Lazy
from deepem.io.pyramid import downsample
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

cloudvolume = pytest.importorskip("cloudvolume")


def classes(path: str, size: tuple[int, int, int]) -> Layout:
    return Layout(Box((0, 0, 0), size), (4.0, 4.0, 4.0), (8, 8, 8), "uint8").of_classes()


def test_levels_of_labels_hold_no_value_that_the_finest_has_not(tmp_path):
    """D2: labels 1 and 3 side by side, of odd width, made no 2; one label alone stays alone."""
    for name, label in (("two", np.array([1, 3])), ("one", np.array([3, 3]))):
        path, size = f"file://{tmp_path}/{name}", (9, 27, 33)
        make_volume(path, 1, classes(path, size), {})
        array = np.broadcast_to(label.repeat((17, 16)), size).astype(np.uint8)
        volume = cloudvolume.CloudVolume(path, progress=False, compress=False)
        volume[:] = array.transpose(2, 1, 0)[..., None].copy()
        levels = downsample(path)
        assert levels > 1
        for mip in range(levels):
            found = np.asarray(cloudvolume.CloudVolume(path, mip=mip, progress=False)[:])
            assert set(np.unique(found)) == set(label.tolist())


def test_a_sharded_volume_is_no_output(tmp_path):
    """D6: workers that write parts of one shard undo each other."""
    path = f"file://{tmp_path}/sharded"
    layout = Layout(Box((0, 0, 0), (16, 16, 16)), (4.0, 4.0, 4.0), (8, 8, 8), "uint8")
    volume = make_volume(path, 1, layout, {})
    assert fits(path, 1, layout)
    volume.scale["sharding"] = {
        "@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 0, "hash": "identity", "minishard_bits": 0,
        "shard_bits": 0, "minishard_index_encoding": "raw", "data_encoding": "raw",
    }  # fmt: skip
    volume.commit_info()
    with pytest.raises(InputError, match="a sharded volume"):
        fits(path, 1, layout)


@pytest.mark.parametrize("version", [2, 3])
def test_a_lost_chunk_of_eight_is_named(tmp_path, version, capsys):
    """D5: in memory and lazily; an array that is meant to be sparse is not complained of."""
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8, 8), dtype="u1", chunks=(4, 4, 4), zarr_format=version)
    array[:] = 7
    gone = "1.0.1" if version == 2 else "c/1/0/1"
    (tmp_path / "a.zarr" / gone).unlink()
    imread(tmp_path / "a.zarr")
    assert f"1 chunk is absent and read as the fill value, such as {gone}" in capsys.readouterr().err
    np.asarray(Lazy(tmp_path / "a.zarr"))
    assert f"the chunk {gone} is absent" in capsys.readouterr().err
    imread(tmp_path / "a.zarr", sparse=True)
    np.asarray(Lazy(tmp_path / "a.zarr", sparse=True))
    assert not capsys.readouterr().err


def test_hdf5_chunks_that_were_never_written_are_counted(tmp_path, capsys):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("main", (2, 8, 8, 8), "u1", chunks=(1, 4, 4, 4))
        made[:, :4] = 5
    found = imread(tmp_path / "a.h5")
    assert (found[:, 4:] == 0).all()
    assert "8 chunks are absent and read as the fill value, such as at (0, 4, 0, 0)" in capsys.readouterr().err
    imsave(found, tmp_path / "b.h5")
    imread(tmp_path / "b.h5")
    assert not capsys.readouterr().err
