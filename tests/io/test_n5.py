"""N5: axes the other way round, and blocks at the far end as either kind of writer leaves them."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from deepem.io.files import imread, imsave, opened
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

pytest.importorskip("tensorstore")


@pytest.mark.parametrize("clipped", [True, False])
def test_blocks_at_the_far_end_may_be_clipped_or_overhang(tmp_path, clipped):
    folder = tmp_path / "v.n5"
    sizes, block = (4, 5, 3), (3, 3, 3)  # x, y, z
    array = np.arange(100, 160, dtype=np.uint16).reshape(sizes[::-1])
    for index in np.ndindex(2, 2, 1):
        begin = [i * n for i, n in zip(index, block, strict=True)]
        held = [min(n, m - b) for n, m, b in zip(block, sizes, begin, strict=True)]
        inside = array[tuple(slice(b, b + n) for b, n in zip(begin[::-1], held[::-1], strict=True))]
        if not clipped:
            inside = np.pad(inside, [(0, n - m) for n, m in zip(block, held[::-1], strict=True)])
        path = folder.joinpath(*map(str, index))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack(">HH3I", 0, 3, *inside.shape[::-1]) + inside.astype(">u2").tobytes())
    told = {"dimensions": sizes, "blockSize": block, "dataType": "uint16", "compression": {"type": "raw"}}
    (folder / "attributes.json").write_text(json.dumps({**told, "resolution": [3.58, 4, 40]}))
    np.testing.assert_array_equal(imread(folder), array)
    with opened(folder) as stored:
        assert stored.voxel_size_nm == (40, 4, 3.58)
        box = Box((1, 2, 1), (3, 5, 4))
        np.testing.assert_array_equal(stored.read(box)[0], array[box.slices()])


def test_an_array_inside_is_named_or_those_there_are_listed(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    imsave(array, f"{tmp_path}/v.n5:volumes/raw", attributes={"voxel_size_nm": (40, 4, 4), "offset": (1, 2, 3)})
    np.testing.assert_array_equal(imread(f"{tmp_path}/v.n5:volumes/raw"), array)
    with opened(f"{tmp_path}/v.n5:volumes/raw") as stored:
        assert (stored.info.voxel_size_nm, stored.info.offset) == ((40, 4, 4), (1, 2, 3))
    with pytest.raises(InputError, match=r"no dataset 'main', wants .*that is there: volumes/raw"):
        imread(tmp_path / "v.n5")


def test_a_damaged_block_is_refused(tmp_path):
    imsave(np.random.default_rng(0).integers(0, 99, (3, 4, 5), np.uint8), tmp_path / "v.n5")
    (block,) = (tmp_path / "v.n5").glob("0/0/0")
    block.write_bytes(block.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"v\.n5: got a file that cannot be read"):
        imread(tmp_path / "v.n5")


def test_absent_blocks_are_counted_and_other_names_are_refused(tmp_path, capsys):
    imsave(np.full((9, 70, 66), 7, np.uint8), tmp_path / "v.n5")
    blocks = sorted(path for path in (tmp_path / "v.n5").glob("*/*/*") if path.is_file())
    blocks[0].unlink()
    whole = Box((0, 0, 0), (9, 70, 66))
    with opened(tmp_path / "v.n5") as stored:
        lazily = stored.read(whole)[0]
    np.testing.assert_array_equal(imread(tmp_path / "v.n5"), lazily)
    assert (lazily[:, :64, :64] == 0).all()
    told = "v.n5: 1 chunk is absent and read as the fill value, such as 0/0/0"
    assert capsys.readouterr().err.count(told) == 2
    imread(tmp_path / "v.n5", sparse=True)
    assert not capsys.readouterr().err
    for block in blocks[1:]:
        block.rename(block.with_name(block.name + ".bak"))
    with pytest.raises(
        InputError, match=r"v\.n5: got no chunk, but files such as .*bak, wants chunks named like 0/0/0"
    ):
        imread(tmp_path / "v.n5")
