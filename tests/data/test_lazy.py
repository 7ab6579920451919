"""Volumes that stay on disk give the samples of volumes in memory, bit for bit."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.data import cache, scan
from deepem.data.augment.flyem.aug_mip1 import get_augmentation
from deepem.data.drawn import Drawn
from deepem.data.facts import BLOCK, Held, block_counts
from deepem.data.loader import batches
from deepem.data.orders import AHEAD
from deepem.data.patch import Locations
from deepem.data.sampler.basic import Sampler, get_spec
from deepem.data.scan import facts_of, meetings
from deepem.data.shared import Shared
from deepem.data.volume import compact
from deepem.data.worker import Stream, generator
from deepem.io.files import imsave
from deepem.io.lazy import Lazy, as_lazy, lazily
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

FULL = {"write_empty_chunks": True}
SHAPE = (34, 70, 81)
PATCH = (5, 24, 24)
SPEC = get_spec({"input": (1, *PATCH)}, {"affinity": (3, *PATCH), "mitochondria": (1, *PATCH)})


def volume(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 40, (7, 7, 7)).astype(np.uint64)
    seg = blocks.repeat(5, 0).repeat(10, 1).repeat(12, 2)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return {
        "img": rng.integers(0, 256, SHAPE, dtype=np.uint8),
        "seg": np.ascontiguousarray(seg),
        "mit": (seg % 7 == 0).astype(np.uint16) * 300,
        "msk_train": (rng.random(SHAPE) < 0.3).astype(np.uint8) * 255,
        "seg_msk": (rng.random(SHAPE) < 0.8).astype(np.float32) * 0.5,
    }


def save_hdf5(folder: Path, arrays: dict[str, Any]) -> dict[str, str]:
    with h5py.File(folder / "v.h5", "w") as file:
        for key, array in arrays.items():
            chunks = None if key == "mit" else (8, 16, 17)
            file.create_dataset(key, data=array, chunks=chunks, compression="gzip" if key == "seg" else None)
    return {key: f"{folder}/v.h5:{key}" for key in arrays}


def save_zarr(folder: Path, arrays: dict[str, Any], version: int = 3) -> dict[str, str]:
    zarr = pytest.importorskip("zarr")
    for key, array in arrays.items():
        shards = (16, 32, 32) if version == 3 and key in ("img", "seg") else None
        made = zarr.create_array(f"{folder}/{key}.zarr", shape=SHAPE, dtype=array.dtype, chunks=(8, 16, 16),
                                 shards=shards, zarr_format=version, config=FULL)  # fmt: skip
        made[:] = array
    return {key: f"{folder}/{key}.zarr" for key in arrays}


def save_zarr2(folder: Path, arrays: dict[str, Any]) -> dict[str, str]:
    return save_zarr(folder, arrays, 2)


def save_levels(folder: Path, arrays: dict[str, Any]) -> dict[str, str]:
    """Each an OME-NGFF image whose second level is meant; the first one is of another size."""
    zarr = pytest.importorskip("zarr")
    for key, array in arrays.items():
        top = zarr.open_group(f"{folder}/{key}.zarr", mode="w", zarr_format=2)
        top.create_array("0", data=np.zeros((1, 1, 68, 70, 81), array.dtype))
        top.create_array("1", data=array[None, None], chunks=(1, 1, 8, 16, 16), config=FULL)
        axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "tczyx"]
        scales = [{"type": "scale", "scale": [1, 1, 20 * (i + 1), 4, 4]} for i in (0, 1)]
        levels = [{"path": str(i), "coordinateTransformations": [scale]} for i, scale in enumerate(scales)]
        top.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    return {key: f"{folder}/{key}.zarr:1" for key in arrays}


def save_tiff(folder: Path, arrays: dict[str, Any]) -> dict[str, str]:
    for key, array in arrays.items():
        tifffile.imwrite(folder / f"{key}.tif", array, photometric="minisblack")
    return {key: f"{folder}/{key}.tif" for key in arrays}


def save_npy(folder: Path, arrays: dict[str, Any]) -> dict[str, str]:
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)
    return {key: f"{folder}/{key}.npy" for key in arrays}


def save_precomputed(folder: Path, arrays: dict[str, Any]) -> dict[str, str]:
    for key, array in arrays.items():
        imsave(array, f"file://{folder}/{key}", attributes={"offset": (3, 5, 7)})
    return {key: f"file://{folder}/{key}" for key in arrays}


SAVE = [save_hdf5, save_zarr, save_zarr2, save_levels, save_tiff, save_npy, save_precomputed]


def sampler(given: dict[str, Any], aug: Any = None, room: int | None = None, workers: int = 1) -> Sampler:
    arrays = {"v": compact("v", {**given, "loc": True}, ("seg", "mit"), "train")}
    if room is not None:
        cache.share(arrays, {}, room, workers)
    return Sampler(arrays, SPEC, True, aug)


def require_same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype
        np.testing.assert_array_equal(one[key], other[key])


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("save", SAVE)
def test_every_format_gives_the_samples_that_memory_gives(tmp_path, save, capsys):
    arrays = volume()
    paths = save(tmp_path, arrays)
    lazy = {key: Lazy(path, sparse="msk" in key) for key, path in paths.items()}
    expected, drawn = sampler(arrays), sampler(lazy, room=2**20)
    told = capsys.readouterr().err.splitlines()
    assert sorted(told) == sorted(told[: len(told) // 2] * 2), "the same warnings for both"
    assert isinstance(drawn.provider.leaves()[0].array("img"), Drawn)
    for index in range(4):
        require_same(drawn(generator(0, "train", index)), expected(generator(0, "train", index)))


@pytest.mark.parametrize("room", [0, 50_000, 2**30])
@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_batches_that_memory_gives_whatever_the_cache_holds(tmp_path, room, context):
    arrays = volume()
    lazy = {key: Lazy(path) for key, path in save_hdf5(tmp_path, arrays).items()}
    recipe = get_augmentation(True, missing=3, blur=3, lost=True, random=True)
    both = [
        batches(one, seed=0, phase="train", start=2, stop=8, batch_size=2, num_workers=n, context=context)
        for one, n in ((sampler(arrays, recipe), 0), (sampler(lazy, recipe, room, 2), 2))
    ]
    for expected, found in zip(*both, strict=True):
        require_same({key: t.numpy() for key, t in found.items()}, {key: t.numpy() for key, t in expected.items()})


def test_a_cache_that_holds_all_is_read_from_disk_once_and_then_never(tmp_path):
    """All workers fill it, and what one has read no other one reads: here the file is gone by then."""
    lazy = {key: Lazy(path) for key, path in save_hdf5(tmp_path, volume()).items()}
    one = sampler(lazy, room=2**30, workers=2)
    for batch in batches(one, seed=0, phase="train", start=0, stop=300, batch_size=1, num_workers=2, context="fork"):
        del batch
    (tmp_path / "v.h5").unlink()
    for array in lazy.values():
        array.close()
    expected = sampler(volume())
    require_same(one(generator(0, "train", 7)), expected(generator(0, "train", 7)))


def test_the_latest_chunks_stay_within_their_room(tmp_path):
    lazy = {key: Lazy(path) for key, path in save_hdf5(tmp_path, volume()).items()}
    one = sampler(lazy, room=60_000)
    recent = one.provider.leaves()[0].array("img").cache.recent
    for index in range(10):
        one(generator(0, "train", index))
        assert 0 < recent.bytes <= 60_000
        assert recent.bytes == sum(chunk.nbytes for chunk in recent._chunks.values())
        assert not recent._coming


def test_only_the_chunks_of_the_patch_are_read(tmp_path, monkeypatch):
    lazy = Lazy(save_hdf5(tmp_path, volume())["img"])
    read: list[Box] = []
    monkeypatch.setattr(Lazy, "read", lambda self, box, real=Lazy.read: (read.append(box), real(self, box))[1])
    drawn = compact("v", {"img": lazy}, (), "train")["img"]
    cache.share({"v": {"img": drawn}}, {}, 2**30, 1)
    np.testing.assert_array_equal(drawn.cut(Box((6, 15, 30), (9, 17, 36)))[0], volume()["img"][6:9, 15:17, 30:36])
    assert sorted(read, key=lambda box: box.begin) == [
        Box((z, y, x), (z + 8, y + 16, x + 17)) for z in (0, 8) for y in (0, 16) for x in (17, 34)
    ]


def test_what_the_next_samples_need_is_read_ahead(tmp_path):
    lazy = {key: Lazy(path) for key, path in save_hdf5(tmp_path, volume()).items()}
    one = sampler(lazy, get_augmentation(True), room=2**30)
    Stream(one, 0, "train").fetch(5)
    (tmp_path / "v.h5").unlink()
    for array in lazy.values():
        array.close()
    one(generator(0, "train", 5))
    with pytest.raises(InputError, match="no such file"):
        [one(generator(0, "train", index)) for index in range(6, 20)]


@pytest.mark.parametrize("room", [80_000, 300_000, 700_000])
def test_reading_ahead_makes_no_room_by_dropping_what_is_still_needed(tmp_path, monkeypatch, room):
    """In as many reads as without, whatever part of the chunks of a sample the cache holds."""
    paths, reads = save_hdf5(tmp_path, volume()), {0: 0, AHEAD: 0}
    real = Drawn.read
    for ahead in reads:

        def read(self: Drawn, box: Box, ahead: int = ahead) -> Any:
            reads[ahead] += 1
            return real(self, box)

        monkeypatch.setattr(Drawn, "read", read)
        stream = Stream(sampler({key: Lazy(path) for key, path in paths.items()}, room=room), 0, "train")
        for index in range(20):
            if ahead:
                for later in range(index + ahead if index else 1, index + ahead + 1):
                    stream.fetch(later)
            stream.sample(index)
    assert reads[AHEAD] <= 1.02 * reads[0], reads


def test_a_window_is_a_part_without_being_read(tmp_path):
    paths = save_hdf5(tmp_path, volume())
    lazy, img = Lazy(paths["img"]), volume()["img"]
    part = lazy[3:30, 10:, :70][2:, ..., 5:]
    assert isinstance(part, Lazy)
    np.testing.assert_array_equal(np.asarray(part), img[5:30, 10:, 5:70])
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(part))), img[5:30, 10:, 5:70])
    np.testing.assert_array_equal(lazy[4], img[4])
    drawn = compact("v", {"img": part}, (), "train")["img"]
    for room in (0, 20_000, 2**30):
        cache.share({"v": {"img": drawn}}, {}, room, 1)
        np.testing.assert_array_equal(drawn.cut(Box((1, 3, 2), (25, 50, 59)))[0], img[6:30, 13:60, 7:64])


def test_what_stands_for_a_stored_array_is_left_on_disk(tmp_path):
    zarr = pytest.importorskip("zarr")
    arrays = {"img": volume()["img"]}
    path = save_hdf5(tmp_path, arrays)["img"]
    save_zarr(tmp_path, arrays)
    with h5py.File(path.rsplit(":", 1)[0]) as file:
        for one in (file["img"], zarr.open_array(tmp_path / "img.zarr", mode="r")):
            found = as_lazy(one)
            assert found is not None
            np.testing.assert_array_equal(np.asarray(found), arrays["img"])
    assert as_lazy(arrays["img"]) is None
    assert as_lazy(None) is None


def test_n5_which_forked_workers_cannot_read_comes_in_memory(tmp_path):
    pytest.importorskip("tensorstore")
    imsave(volume()["img"], tmp_path / "img.n5")
    assert isinstance(lazily(tmp_path / "img.n5"), np.ndarray)


# What a scan finds


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3), dtype=st.sampled_from(["u1", "i2", "u2", "f4", "u8", "?"]),
    seed=st.integers(0, 99), values=st.sampled_from([1, 2, 50, 300]), chunk=st.integers(3, 20),
)  # fmt: skip
def test_a_scan_finds_what_a_look_at_the_array_finds(tmp_path_factory, shape, dtype, seed, values, chunk):
    array = (np.random.default_rng(seed).integers(0, values, shape) * (255 // max(values - 1, 1) or 1)).astype(dtype)
    file = tmp_path_factory.mktemp("scan") / "a.h5"
    with h5py.File(file, "w") as top:
        top.create_dataset("main", data=array, chunks=tuple(min(chunk, n) for n in shape))
    real, scan.PIECE_BYTES = scan.PIECE_BYTES, 4000
    try:
        facts = scan.scan(Lazy(file))
    finally:
        scan.PIECE_BYTES = real
    held = Held(array[None])
    assert (facts.low, facts.high, facts.whole) == (held.low, held.high, held.whole)
    assert facts.two_valued == held.two_valued
    if array.dtype.kind in "iu":
        assert facts.near_top == held.near_top
    assert (facts.touch, facts.gap) == meetings(array)
    assert facts.marked == np.count_nonzero(array)
    np.testing.assert_array_equal(facts.blocks, block_counts(array))
    brute = [[[np.count_nonzero(array[z : z + BLOCK, y : y + BLOCK, x : x + BLOCK]) for x in range(0, shape[2], BLOCK)]
              for y in range(0, shape[1], BLOCK)] for z in range(0, shape[0], BLOCK)]  # fmt: skip
    np.testing.assert_array_equal(facts.blocks, brute)


def kept(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".facts.npz"))


def test_a_scan_is_kept_beside_the_data_until_they_change(tmp_path, monkeypatch):
    paths = save_hdf5(tmp_path, {"seg": volume()["seg"]})
    first = facts_of(Lazy(paths["seg"]))
    assert len(kept(tmp_path)) == 1
    monkeypatch.setattr(scan, "scan", lambda lazy: pytest.fail("scanned again"))
    again = facts_of(Lazy(paths["seg"]))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in first.__dataclass_fields__)
    monkeypatch.undo()
    changed = volume()["seg"]
    changed[0, 0, 0] = 12345
    save_hdf5(tmp_path, {"seg": changed})
    assert facts_of(Lazy(paths["seg"])).high == 12345
    assert len(kept(tmp_path)) == 1


def test_a_scan_of_data_that_cannot_be_written_beside_is_kept_in_the_cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    paths = save_hdf5(folder, {"seg": volume()["seg"]})
    real = scan.replacing

    def refusing(place):
        if place.parent == folder:
            raise PermissionError(13, "read-only", str(place))
        return real(place)

    monkeypatch.setattr(scan, "replacing", refusing)
    facts_of(Lazy(paths["seg"]))
    assert not kept(folder)
    assert len(os.listdir(tmp_path / "cache" / "deepem" / "facts")) == 1
    monkeypatch.setattr(scan, "scan", lambda lazy: pytest.fail("scanned again"))
    facts_of(Lazy(paths["seg"]))


def test_a_kept_scan_that_was_cut_short_is_made_again(tmp_path):
    path = save_hdf5(tmp_path, {"seg": volume()["seg"]})["seg"]
    high = facts_of(Lazy(path)).high
    file = tmp_path / kept(tmp_path)[0]
    file.write_bytes(file.read_bytes()[:50])
    assert facts_of(Lazy(path)).high == high


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("seg", lambda a: a.astype(np.float32), "float32 labels"),
        ("seg", lambda a: np.where(a == 3, 2**64 - 1, a).astype(np.uint64), "the label 18446744073709551615"),
        ("mit", lambda a: a + np.float32(0.5), "fractions"),
        ("msk_train", lambda a: -a.astype(np.int16), "mask values"),
        ("img", lambda a: a.astype(np.uint16), "uint16 grey values"),
        ("img", lambda a: a.astype(np.float32), "float grey values from 0 to 255"),
    ],
)
def test_what_is_refused_in_memory_is_refused_on_disk_in_the_same_words(tmp_path, key, change, words):
    arrays = volume()
    arrays[key] = change(arrays[key])
    lazy = {name: Lazy(path) for name, path in save_hdf5(tmp_path, arrays).items()}
    lines = []
    for given_arrays in (arrays, lazy):
        with pytest.raises(InputError, match=words) as error:
            sampler(given_arrays)
        lines.append(str(error.value))
    assert lines[0] == lines[1]


# Locations


@pytest.mark.parametrize("share", [0.001, 0.05, 0.6, 1.0])
def test_locations_are_uniform_and_the_same_without_the_mask_in_memory(tmp_path, share):
    mask = (np.random.default_rng(1).random((40, 50, 70)) < share).astype(np.uint8)
    mask[5, 5, 5] = 1
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("main", data=mask, chunks=(16, 16, 16))
    drawn = compact("v", {"img": Lazy(tmp_path / "m.h5"), "msk": Lazy(tmp_path / "m.h5")}, (), "train")["msk"]
    held, lazy = Locations(Shared(mask[None])), Locations(drawn)
    box = Box((3, 4, 5), (33, 44, 69))
    found = [held.draw(box, np.random.default_rng(seed)) for seed in range(2000)]
    assert found[:100] == [lazy.draw(box, np.random.default_rng(seed)) for seed in range(100)]
    allowed = np.argwhere(mask[box.slices()]) + box.begin
    assert set(found) <= {tuple(at) for at in allowed.tolist()}
    sixths = [(np.linspace(a, b, 7)) for a, b in zip(*box, strict=True)]
    for axis, edges in enumerate(sixths):
        seen = np.histogram([at[axis] for at in found], edges)[0]
        expected = np.histogram(allowed[:, axis], edges)[0] / len(allowed) * len(found)
        assert (np.abs(seen - expected) <= 5 * np.sqrt(expected + 1)).all()


def test_a_mask_with_voxels_out_of_reach_alone_gives_none_and_one_within_reach_is_found():
    mask = np.zeros((70, 70, 70), np.uint8)
    mask[:40] = 1
    box = Box((41, 0, 0), (70, 70, 70))
    assert Locations(Shared(mask[None])).draw(box, np.random.default_rng(0)) is None
    mask[69, 68, 67] = 1
    assert Locations(Shared(mask[None])).draw(box, np.random.default_rng(0)) == (69, 68, 67)


# What goes wrong


@pytest.mark.parametrize("key", ["img", "seg"])
def test_a_lost_chunk_is_told_once(tmp_path, capsys, key):
    arrays = volume()
    paths = save_zarr2(tmp_path, arrays)
    gone = tmp_path / f"{key}.zarr" / "1.1.1"
    gone.unlink()
    one = sampler({name: Lazy(path, sparse="msk" in name) for name, path in paths.items()}, room=2**30)
    for index in range(60):
        one(generator(0, "train", index))
    told = [line for line in capsys.readouterr().err.splitlines() if "absent" in line]
    assert len(told) == 1, told
    assert f"{key}.zarr" in told[0]
    assert "1.1.1" in told[0]


def test_a_damaged_chunk_is_named_with_the_sample(tmp_path):
    paths = save_zarr2(tmp_path, {"img": volume()["img"]})
    for file in (tmp_path / "img.zarr").glob("*.*.*"):
        file.write_bytes(b"noise")
    arrays = {"v": compact("v", {"img": Lazy(paths["img"])}, (), "train")}
    made = Sampler(arrays, get_spec({"input": (1, *PATCH)}, {}), True)
    with pytest.raises(InputError, match=r"img\.zarr \(train sample 3 of seed 0\): got unreadable voxels .* file \d"):
        Stream(made, 0, "train").sample(3)


def test_a_dead_worker_ends_the_run_in_one_line(tmp_path):
    from deepem.data.loader import WorkerError

    lazy = {key: Lazy(path) for key, path in save_hdf5(tmp_path, volume()).items()}
    one = sampler(lazy, room=50_000, workers=2)
    made = batches(Killing(one, os.getpid()), seed=0, phase="train", start=0, stop=9, batch_size=1, num_workers=2)
    with pytest.raises(WorkerError, match="died in or after train sample"):
        list(made)


class Killing:
    """A sampler whose worker dies at some sample."""

    def __init__(self, inner: Sampler, owner: int) -> None:
        self.inner, self.owner, self.count = inner, owner, 0
        self.fetch = inner.fetch

    def __call__(self, rng: np.random.Generator) -> dict[str, Any]:
        self.count += 1
        if os.getpid() != self.owner and self.count == 3:
            os.kill(os.getpid(), 9)
        return self.inner(rng)


def test_what_a_scan_keeps_is_a_number_per_cube(tmp_path):
    sizes = []
    for name, side in (("a", 64), ("b", 256)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("main", shape=(64, side, side), dtype="u1", chunks=(32, 64, 64))
        sizes.append(facts_of(Lazy(tmp_path / f"{name}.h5", sparse=True)).blocks.nbytes)
    assert sizes == [2 * 2 * 2 * 8, 2 * 8 * 8 * 8]
