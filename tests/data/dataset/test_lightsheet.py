"""Light-sheet volumes from a folder, and their crops by an index in a database."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile

import numpy as np
import pytest
import tifffile
import torch

from deepem.data.crop_index import CropIndex, Wanted, split_by_group
from deepem.data.dataset.lightsheet import database, folder
from deepem.data.emio import imsave
from deepem.data.items import ItemSampler, ids_of
from deepem.tasks import choose
from deepem.utils.errors import InputError

SIZE = (12, 20, 24)
INST = choose(["inst"])
TWO = choose(["inst"], channels={"inst": 2})


def blocks(seed=0):
    """Ids of separate cuboids on a grid, some cells of it empty."""
    rng = np.random.default_rng(seed)
    ids, n = np.zeros(SIZE, np.uint16), 0
    for z in range(0, 12, 6):
        for y in range(0, 20, 5):
            for x in range(0, 24, 6):
                if rng.random() < 0.8:
                    n += 1
                    ids[z : z + rng.integers(1, 6), y : y + rng.integers(1, 5), x : x + rng.integers(1, 6)] = n
    return ids


@pytest.fixture
def data(tmp_path):
    """A folder with a TIFF volume `a`, a zarr volume `b`, and `c` in the flat layout."""
    for seed, (image, label) in enumerate(
        [("a/img.tif", "a/seg.tif"), ("b/img.zarr", "b/seg.zarr"), ("img/c.tif", "seg/c.tif")]
    ):
        ids = blocks(seed)
        imsave((ids > 0).astype(np.uint8) * 200, tmp_path / image)
        imsave(ids, tmp_path / label)
    return tmp_path


def test_ids_are_those_that_have_an_image(data):
    (data / "empty").mkdir()
    (data / "notes.txt").write_text("x")
    assert folder.ids_in(data) == ["a", "b", "c"]
    with pytest.raises(InputError, match="without a volume"):
        folder.ids_in(data / "empty")
    with pytest.raises(InputError, match="a folder of volumes"):
        folder.ids_in(data / "nowhere")


def test_volumes_are_as_in_the_files(data):
    loaded = folder.load_data(data, labels=("seg", "mit"), tasks=INST)
    assert list(loaded) == ["a", "b", "c"]
    for seed, volume in enumerate(loaded.values()):
        assert np.array_equal(volume["seg"], blocks(seed))
        assert volume["img"].dtype == np.uint8
        assert np.array_equal(volume["img"][0] > 0, blocks(seed) > 0)
        assert "mit" not in volume


def test_sixteen_bits_stay_in_order(tmp_path):
    values = np.array([0, 300, 40000, 65535], np.uint16).reshape(1, 2, 2)
    imsave(values, tmp_path / "v/img.tif")
    image = folder.load_data(tmp_path)["v"]["img"]
    assert image.dtype == np.float32
    assert np.allclose(image.ravel(), [0, 300 / 65535, 40000 / 65535, 1])
    image = folder.load_data(tmp_path, intensity_low=300, intensity_high=40000)["v"]["img"]
    assert image.ravel().tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="the lower one first"):
        folder.load_data(tmp_path, intensity_low=5, intensity_high=5)


def test_channels_are_chosen_in_their_order(tmp_path):
    many = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 4, 5, 6), np.uint8)
    np.save(tmp_path / "img.npy", many)
    (tmp_path / "v").mkdir()
    (tmp_path / "img.npy").rename(tmp_path / "v/img.npy")
    assert folder.load_data(tmp_path, channels=[2, 0])["v"]["img"][:, 0, 0, 0].tolist() == [2, 0]
    assert folder.load_data(tmp_path)["v"]["img"].shape == (3, 4, 5, 6)
    with pytest.raises(InputError, match="no channel 3, wants one of 0 to 2"):
        folder.load_data(tmp_path, channels=[3])


def test_classes_come_from_the_table_beside_the_labels(data):
    ids = blocks(0)
    (data / "a/seg.classes.json").write_text(json.dumps({"1": 2, "2": 1, "3": 0}))
    loaded = folder.load_data(data, ["a"], labels=("seg",), tasks=TWO)["a"]
    assert np.array_equal(loaded["seg"], np.stack([np.where(ids == 2, 2, 0), np.where(ids == 1, 1, 0)]))
    assert np.array_equal(loaded["seg_msk"], (ids <= 2).astype(np.uint8)), "objects of no known class do not count"
    assert folder.load_data(data, ["a"], labels=("seg",), tasks=INST)["a"]["seg"].ndim == 3, "with one, all are of it"
    (data / "a/seg.classes.json").write_text(json.dumps({"1": 3}))
    with pytest.raises(InputError, match="the class 3 in the table beside it, wants inst_classes 3"):
        folder.load_data(data, ["a"], labels=("seg",), tasks=TWO)
    (data / "a/seg.classes.json").write_text("[1]")
    with pytest.raises(InputError, match="a JSON table id -> class"):
        folder.load_data(data, ["a"], labels=("seg",), tasks=TWO)


def test_a_label_volume_for_each_class(data):
    tifffile.imwrite(data / "a/cells.tif", (blocks(0) > 0).astype(np.uint8))
    loaded = folder.load_data(data, ["a"], labels=("seg",), tasks=TWO, inst_labels=["seg", "cells"])["a"]["seg"]
    most = int(blocks(0).max())
    assert np.array_equal(loaded[0], blocks(0))
    assert np.array_equal(loaded[1], np.where(blocks(0) > 0, 1 + most, 0)), "no id means two objects"
    with pytest.raises(InputError, match="inst_labels: got 1 label volumes, wants 2, one for each class"):
        folder.load_data(data, ["a"], labels=("seg",), tasks=TWO, inst_labels=["seg"])


def test_voxels_are_of_one_size(tmp_path):
    for name, size in (("img", (284, 127, 127)), ("seg", (284, 127, 120))):
        imsave(np.zeros(SIZE, np.uint8), tmp_path / f"v/{name}.h5", attributes={"voxel_size_nm": size})
    with pytest.raises(InputError, match=r"voxels of \(284.0, 127.0, 120.0\) nm"):
        folder.load_data(tmp_path)
    (tmp_path / "v/seg.h5").unlink()
    with pytest.raises(InputError, match="--voxel_size_nm"):
        folder.load_data(tmp_path, voxel_size_nm=(200, 127, 127))
    folder.load_data(tmp_path, voxel_size_nm=(284, 127, 127))


# The index


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The URL of a PostgreSQL of our own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    there = sorted(p for p in ("/usr/lib/postgresql",) if os.path.isdir(p))
    bins = [os.path.join(there[0], v, "bin") for v in sorted(os.listdir(there[0]))] if there else []
    if not bins:
        pytest.skip("PostgreSQL is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = os.path.join(tempfile.gettempdir(), f"deepem_pg_{port}")  # passable for the user postgres
    root = os.getuid() == 0

    runuser = shutil.which("runuser") or "/usr/sbin/runuser"  # not every root has sbin on the path
    user = f"{runuser} -u postgres --" if root else ""
    program = f"{user} {bins[-1]}"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    os.mkdir(home, 0o700)
    if root:
        shutil.chown(home, "postgres")
    # it stops when our end of the pipe closes: also if the tests are killed
    script = f"""
    trap '' PIPE
    {program}/initdb -D {home} -U test --auth=trust -N -E UTF8 --locale=C >/dev/null &&
    {program}/pg_ctl -D {home} -w -l {home}/log -o '{options}' start >/dev/null && echo up 2>/dev/null
    exec >/dev/null
    cat
    {program}/pg_ctl -D {home} -m immediate stop
    rm -rf {home}
    """
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"up\n"
        yield f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
        keeper.stdin.close()
        keeper.wait(30)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, data):
    """Each database."""
    pytest.importorskip("sqlalchemy")
    return str(data / "crops.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


def items_of(data, url, **more):
    return database.get_items(data, database=url, crop_size=(6, 10, 12), **more)


def expected(ids, crop, stride, least=1):
    """Crops with objects, and what is in each, by going through all voxels."""
    found = []
    begins = [[*range(0, max(n - c, 0), s), max(n - c, 0)] for n, c, s in zip(ids.shape, crop, stride, strict=True)]
    for z in begins[0]:
        for y in begins[1]:
            for x in begins[2]:
                part = ids[z : z + crop[0], y : y + crop[1], x : x + crop[2]]
                objects = []
                for name in range(1, ids.max() + 1):
                    at = np.argwhere(part == name)
                    if len(at) >= least:
                        objects.append((name, [*at.min(0), *(at.max(0) + 1)], len(at)))
                if objects:
                    found.append(((z, y, x), objects))
    return found


def test_the_index_holds_every_crop_with_objects_and_their_boxes(data, url):
    items = items_of(data, url, min_object_voxels=3)
    want = [(name, *one) for s, name in enumerate("abc") for one in expected(blocks(s), (6, 10, 12), (3, 5, 6), 3)]
    assert len(items) == len(want) > 20
    for place, (name, corner, objects) in enumerate(want):
        row, rows = items.index.crop(place)
        assert (row.volume, row.z, row.y, row.x, row.objects) == (name, *corner, len(objects))
        held = [(r.object, [r.z1, r.y1, r.x1, r.z2, r.y2, r.x2], r.voxels) for r in rows]
        assert held == objects


def test_an_item_is_an_image_with_boxes_labels_and_masks(data, url):
    items = items_of(data, url)
    place = next(i for i in range(len(items)) if items.index.crop(i)[0].volume == "b")
    image, target = items[place]
    row, _ = items.index.crop(place)
    ids = blocks(1)[row.z : row.z + 6, row.y : row.y + 10, row.x : row.x + 12]
    assert (image.shape, image.dtype) == ((1, 6, 10, 12), torch.float32)
    assert np.allclose(image[0], (ids > 0) * (200 / 255))
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1] * len(target["boxes"])
    for box, mask, name in zip(target["boxes"].int().tolist(), target["masks"], target["ids"].tolist(), strict=True):
        assert np.array_equal(mask, ids == name)
        at = np.argwhere(ids == name)
        assert box == [*at.min(0), *(at.max(0) + 1)]
    items.transforms = lambda image, target: (image + 1, {"n": len(target["boxes"])})
    assert items[place][1] == {"n": len(target["boxes"])}


def test_it_is_scanned_again_only_when_a_file_or_the_question_changed(data, url, monkeypatch):
    from deepem.data import crop_index

    scans, scan = [], crop_index.crops_of
    monkeypatch.setattr(crop_index, "crops_of", lambda entry, wanted: scans.append(entry.name) or scan(entry, wanted))
    first = items_of(data, url)
    assert scans == ["a", "b", "c"]
    assert len(items_of(data, url)) == len(first)
    assert len(scans) == 3
    items_of(data, url, min_object_voxels=20)
    assert len(scans) == 6
    items_of(data, url)
    assert len(scans) == 6, "both are kept"
    imsave(np.zeros(SIZE, np.uint16), data / "a/seg.tif")
    changed = items_of(data, url)
    assert len(scans) == 9
    assert "a" not in changed.index.volumes()
    items_of(data, url, force_create=True)
    assert len(scans) == 12


def _sum(items, places, queue):
    queue.put(sum(int(items[i][1]["masks"].sum()) for i in places))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_by_connections_of_their_own(data, url, method):
    items = items_of(data, url)
    everything = range(len(items))
    whole = sum(int(items[i][1]["masks"].sum()) for i in everything)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_sum, args=(items, everything[n::2], queue)) for n in range(2)]
    for worker in workers:
        worker.start()
    assert sum(queue.get(timeout=60) for _ in workers) == whole
    for worker in workers:
        worker.join()


def test_an_index_appears_whole_or_not_at_all(data, monkeypatch):
    pytest.importorskip("sqlalchemy")
    from deepem.data import crop_index

    wanted = Wanted(str(data), ("a", "b"), (6, 10, 12), (6, 10, 12))
    scan = crop_index.crops_of

    def broken(entry, wanted):
        if entry.name == "b":
            raise KeyboardInterrupt
        return scan(entry, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(crop_index, "crops_of", broken)
        with pytest.raises(KeyboardInterrupt):
            CropIndex(str(data / "crops.db"), wanted)
    assert CropIndex(str(data / "crops.db"), wanted).volumes().count("b") > 0


def test_a_database_that_cannot_be_used_is_one_line(data):
    pytest.importorskip("sqlalchemy")
    with pytest.raises(InputError, match=r"database: got .*nowhere") as caught:
        items_of(data, str(data / "nowhere/crops.db"))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        items_of(data, "postgresql+psycopg://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def test_gathered_crops_are_split_by_group_and_loaded_by_several_ranks(data):
    pytest.importorskip("sqlalchemy")
    how = {"crop_size": (6, 10, 12), "val_share": 0.34, "seed": 1}
    train, val = database.gather_dataset(data, **how)
    volumes = train.dataset.index.volumes()
    assert {volumes[i] for i in train.indices} | {volumes[i] for i in val.indices} == set("abc")
    assert not {volumes[i] for i in train.indices} & {volumes[i] for i in val.indices}
    loaders = [
        database.gather_dataset(data, **how, return_loaders=True, batch_size=2, rank=r, world=2)[0] for r in (0, 1)
    ]
    counts = [sum(len(images) for images, _ in loader) for loader in loaders]
    assert counts == [-(-len(train) // 2)] * 2
    images, targets = next(iter(loaders[0]))
    assert images[0].shape == (1, 6, 10, 12)
    assert {"boxes", "labels", "masks"} <= targets[0].keys()
    assert len(database.gather_dataset(data, crop_size=(6, 10, 12))) == len(volumes)
    assert split_by_group(["a", "b", "b"], 0.01, 0) in (([1, 2], [0]), ([0], [1, 2]))


def test_an_item_becomes_a_sample_of_the_trainer(data):
    from deepem.data.sampler import basic

    spec = basic.get_spec({"input": (1, 4, 8, 8)}, {"instance": (1, 4, 8, 8)})
    items = [(torch.full((1, 5, 8, 6), 0.5), {"labels": torch.tensor([1, 1]), "masks": torch.zeros(2, 5, 8, 6)})]
    items[0][1]["masks"][0, 1:3, 2:4] = 1
    items[0][1]["masks"][1, 4] = 1
    sampler = ItemSampler(items, lambda volumes: basic.Sampler(volumes, spec), "mine", 1, (4, 8, 8))
    assert sampler.channels == 1
    sample = sampler(np.random.default_rng(3))
    assert {name: array.shape for name, array in sample.items()} == spec
    assert set(np.unique(sample["instance"])) <= {0, 1, 2}
    assert sample["instance_mask"][..., :6].all(), "what was padded does not count"
    assert not sample["instance_mask"][..., 6:].any()
    again = sampler(np.random.default_rng(3))
    assert all(np.array_equal(sample[name], again[name]) for name in sample)
    with pytest.raises(InputError, match="mine: got no item"):
        ItemSampler([], None, "mine", 1, (4, 8, 8))
    with pytest.raises(InputError, match=r"mine: item 0: got the class 3, wants 1 to 2"):
        ids_of("mine: item 0", np.ones((1, 1, 1, 1)), np.array([3]), 2, (1, 1, 1))
