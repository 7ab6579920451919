"""deepem prepare: files in the formats in which data sets are handed out become folders that the modules read."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import h5py
import numpy as np
import pytest
import tifffile

from deepem.data import challenges
from deepem.data.dataset import cremi, fib25, isbi2012, lucchi, mitoem, nucmm, snemi3d
from deepem.data.emio import imread, imsave
from deepem.data.volume import compact
from deepem.tools.prepare import main
from deepem.utils.errors import InputError

SHAPE = (5, 12, 14)
MODULES = {"snemi3d": snemi3d, "isbi2012": isbi2012, "lucchi": lucchi, "mitoem": mitoem, "nucmm": nucmm}
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, SHAPE, np.uint8)
IDS = np.repeat(np.repeat(RNG.integers(1, 300, (5, 3, 7)), 4, 1), 2, 2).astype(np.uint16)


def tiff(path, array):
    tifffile.imwrite(path, array, photometric="minisblack")
    return path


def pngs(path, array):
    path.mkdir()
    for z, section in enumerate(array):
        assert cv2.imwrite(str(path / f"section_{z + 7}.png"), section)  # 7 to 11: as text, 10 would come before 7
    return path


def hdf5(path, array):
    with h5py.File(path, "w") as file:
        file["volumes/raw"] = array
    return Path(f"{path}:volumes/raw")


def ngff(path, array, version):
    zarr = pytest.importorskip("zarr")
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [30.0, 6.0, 6.0]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "version": version}
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    group.attrs.update({"multiscales": [image]} if version == "0.4" else {"ome": {"multiscales": [image]}})
    made = group.create_array("0", shape=array.shape, chunks=(2, 5, 5), dtype=array.dtype)
    made[...] = array
    return path


def n5(path, array):
    pytest.importorskip("tensorstore")
    imsave(array, path)
    return path


FORMATS = {
    "tif": tiff,
    "png": lambda path, array: pngs(path.with_suffix(""), array),
    "h5": hdf5,
    "npy": lambda path, array: (imsave(array, path), path)[1],
    "zarr": lambda path, array: (imsave(array, path), path)[1],
    "ngff4.zarr": partial(ngff, version="0.4"),
    "ngff5.zarr": partial(ngff, version="0.5"),
    "n5": n5,
}


def prepared(tmp_path, *words):
    return main([*map(str, words), "--data_dir", str(tmp_path / "data")])


def refused(capsys, tmp_path, *words):
    with pytest.raises(SystemExit) as ended:
        prepared(tmp_path, *words)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_becomes_the_same_folder(tmp_path, kind):
    img, seg = (FORMATS[kind](tmp_path / f"{name}.{kind}", array) for name, array in (("img", IMAGE), ("seg", IDS)))
    assert prepared(tmp_path, "snemi3d", "--files", f"img={img}", f"seg={seg}") == 0
    volume = snemi3d.load_data(tmp_path / "data", ["train"], labels=("seg",))["train"]
    np.testing.assert_array_equal(volume["img"], IMAGE)
    np.testing.assert_array_equal(volume["seg"], IDS)
    np.testing.assert_array_equal(volume["msk_train"][:, 0, 0], [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(volume["msk_val"], 1 - volume["msk_train"])
    assert compact("it", volume, ("seg",), "train")["loc"]


def test_the_card_says_what_it_is(tmp_path):
    img, seg = tiff(tmp_path / "i.tif", IMAGE), tiff(tmp_path / "s.tif", IDS)
    prepared(tmp_path, "snemi3d", "--files", f"img={img}", f"seg={seg}", "--licence", "CC BY 4.0", "--pad", "1,2,3")
    folder = tmp_path / "data" / "snemi3d" / "train"
    card = json.loads((folder / "card.json").read_text())
    assert card["voxel_size_nm"] == [30, 6, 6]
    assert (card["axes"], card["licence"], card["id"]) == ("zyx", "CC BY 4.0", "train")
    assert "Kasthuri" in card["source"]
    assert card["inputs"]["seg"] == hashlib.sha256(seg.read_bytes()).hexdigest()
    assert set(card["tasks"]) == {"aff", "long", "bdr"} | {t for t in card["tasks"] if t == "inst"}
    for key, about in card["arrays"].items():
        file = folder / f"{key}.h5"
        assert about["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert about["shape"] == [7, 16, 20]
        assert imread(file).shape == (7, 16, 20)
    assert card["arrays"]["seg"]["instances"] == len(np.unique(IDS))
    with h5py.File(folder / "img.h5") as file:
        assert file["main"].attrs["voxel_size_nm"].tolist() == [30, 6, 6]
    np.testing.assert_array_equal(imread(folder / "img.h5"), np.pad(IMAGE, ((1, 1), (2, 2), (3, 3)), "symmetric"))
    mask = imread(folder / "msk_train.h5") + imread(folder / "msk_val.h5")
    np.testing.assert_array_equal(mask, np.pad(np.ones(SHAPE), ((1, 1), (2, 2), (3, 3))))
    borders = imread(folder / "seg_d3_b0.h5") != imread(folder / "seg.h5")
    assert borders.any()
    assert not imread(folder / "seg_d3_b0.h5")[borders].any()


def test_the_same_command_again_makes_nothing_and_mends_what_is_damaged(tmp_path, capsys):
    words = ("lucchi", "--files", f"img={tiff(tmp_path / 'i.tif', IMAGE)}", f"mit={tiff(tmp_path / 'm.tif', IDS)}")
    prepared(tmp_path, *words)
    folder = tmp_path / "data" / "lucchi" / "train"
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    prepared(tmp_path, *words)
    assert "is there already" in capsys.readouterr().out
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
    (folder / "mit.h5").write_bytes(b"half")
    (folder / "img.h5").unlink()
    prepared(tmp_path, *words)
    np.testing.assert_array_equal(imread(folder / "mit.h5"), IDS)
    np.testing.assert_array_equal(imread(folder / "img.h5"), IMAGE)
    assert "moved away" in refused(capsys, tmp_path, *words, "--val", "0.4")


@pytest.mark.parametrize("name", MODULES)
def test_each_challenge_is_read_by_its_module(tmp_path, name):
    module, challenge = MODULES[name], challenges.CHALLENGES[name]
    for id, label in challenge.labels.items():
        files = [f"img={tiff(tmp_path / f'{id}.tif', IMAGE)}"]
        if label:
            files.append(f"{label}={tiff(tmp_path / f'{id}_{label}.tif', np.where(IDS % 3, IDS, 0))}")
        size = [] if challenge.voxel_size_nm else ["--voxel_size", "480,510,510"]
        assert prepared(tmp_path, name, "--id", id, "--files", *files, *size) == 0
    volumes = module.load_data(tmp_path / "data", labels=("seg", "bdr", "mit"))
    assert list(volumes) == list(module.data_info) == list(challenge.labels)
    assert {id for phase in module.splits.values() for id in phase} <= set(volumes)
    for id, label in challenge.labels.items():
        np.testing.assert_array_equal(volumes[id]["img"], IMAGE)
        expected = np.where(IDS % 3, IDS, 0)
        if label:
            expected = (expected == 0) if label in challenge.inverted else expected
            np.testing.assert_array_equal(volumes[id][label], expected)
    if name == "mitoem":
        np.testing.assert_array_equal(volumes["rat_val"]["seg"], volumes["rat_val"]["mit"])


def test_fib25_goes_where_its_module_reads(tmp_path):
    files = [f"img={tiff(tmp_path / 'i.tif', IMAGE)}", f"seg={tiff(tmp_path / 's.tif', IDS)}"]
    prepared(tmp_path, "fib25", "--files", *files)
    np.testing.assert_array_equal(fib25.load_data(tmp_path / "data", ["all"], labels=("seg",))["all"]["seg"], IDS)


def test_files_as_they_are_can_be_named_instead(tmp_path):
    folder = tmp_path / "snemi3d" / "train"
    folder.mkdir(parents=True)
    tiff(folder / "input.tif", IMAGE)
    tiff(folder / "labels.tif", IDS)
    with pytest.raises(InputError, match="deepem prepare snemi3d"):
        snemi3d.load_data(tmp_path, ["train"], labels=("seg",))
    files = {"img": "input.tif", "seg": "labels.tif"}
    volume = snemi3d.load_data(tmp_path, ["train"], labels=("seg",), files=files)["train"]
    np.testing.assert_array_equal(volume["seg"], IDS)
    assert "msk_train" not in volume


def test_classes_of_a_file_become_labels(tmp_path):
    classes = tiff(tmp_path / "classes.tif", (IDS % 4).astype(np.uint8))
    files = [f"img={tiff(tmp_path / 'i.tif', IMAGE)}", f"mit={classes}", f"mye={classes}"]
    prepared(tmp_path, "lucchi", "--files", *files, "--classes", "mit=2", "mye=1,3")
    folder = tmp_path / "data" / "lucchi" / "train"
    np.testing.assert_array_equal(imread(folder / "mit.h5"), IDS % 4 == 2)
    np.testing.assert_array_equal(imread(folder / "mye.h5"), IDS % 2 == 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "NAME: got nothing, wants one of cremi, snemi3d"),
        (["snemi"], "NAME: got snemi, wants one of cremi"),
        (["snemi3d"], "--files: got nothing, wants img=FILE seg=FILE"),
        (["snemi3d", "--files", "img={i}"], "--files: got no seg"),
        (["snemi3d", "--id", "val"], "--id: got val, wants one of train, test"),
        (["snemi3d", "--files", "img={i}", "seg={i}", "--val", "1"], "--val"),
        (["snemi3d", "--files", "img={i}", "seg=no.tif"], "no.tif: got no file"),
        (["snemi3d", "--files", "img={i}", "seg={small}"], "seg: got shape (4, 12, 14)"),
        (["snemi3d", "--files", "picture={i}"], "--files: got picture="),
        (["snemi3d", "--files", "img={i}", "seg={i}", "--sha256", "img=00"], "checksum"),
        (["snemi3d", "--files", "img={i}", "seg={i}", "--sha256", "mit=00"], "--sha256: got mit"),
        (["nucmm", "--files", "img={i}", "seg={i}"], "--voxel_size: got nothing"),
        (["snemi3d", "--files", "img={empty}", "seg={i}"], "no pictures"),
        (["snemi3d", "--files", "img={i}", "seg={i}", "--pad", "0,-1,0"], "--pad"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, capsys, words, line):
    (tmp_path / "empty").mkdir()
    names = {
        "i": tiff(tmp_path / "i.tif", IMAGE),
        "small": tiff(tmp_path / "s.tif", IDS[1:]),
        "empty": tmp_path / "empty",
    }
    told = refused(capsys, tmp_path, *(word.format(**names) for word in words))
    assert line in told
    assert not (tmp_path / "data").exists()


def test_sections_of_several_sizes_or_in_colours_are_refused(tmp_path, capsys):
    folder = pngs(tmp_path / "s", IMAGE)
    cv2.imwrite(str(folder / "section_20.png"), IMAGE[0, 1:])
    assert "section_20.png" in refused(capsys, tmp_path, "isbi2012", "--id", "test", "--files", f"img={folder}")
    cv2.imwrite(str(folder / "section_20.png"), np.dstack([IMAGE[0], IMAGE[1], IMAGE[2]]))
    assert "in colours" in refused(capsys, tmp_path, "isbi2012", "--id", "test", "--files", f"img={folder}")


@pytest.fixture
def web(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()
        thread.join()


def test_an_interrupted_preparation_goes_on_with_the_files_that_it_lacks(tmp_path, capsys, web):
    pytest.importorskip("pooch")
    url, folder = web
    tiff(folder / "img.tif", IMAGE)
    words = ("lucchi", "--urls", f"img={url}/img.tif?x=1", f"mit={url}/mit.tif")
    with pytest.raises(SystemExit):
        prepared(tmp_path, *words)
    assert "404" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "data" / "lucchi").exists()
    (folder / "img.tif").unlink()
    tiff(folder / "mit.tif", IDS)
    assert prepared(tmp_path, *words) == 0
    np.testing.assert_array_equal(imread(tmp_path / "data" / "lucchi" / "train" / "img.h5"), IMAGE)


# CREMI's samples as they are


def cremi_file(path, labelled=True):
    begin, whole = (1, 4, 3), (7, 20, 20)
    with h5py.File(path, "w") as top:
        raw = top.create_dataset("volumes/raw", data=RNG.integers(0, 256, whole, np.uint8))
        raw.attrs["resolution"] = (40.0, 4.0, 4.0)
        if labelled:
            ids = np.full(SHAPE, 9, np.uint64)
            ids[0, 0, 0] = 2**64 - 1
            made = top.create_dataset("volumes/labels/neuron_ids", data=ids)
            made.attrs["offset"] = [b * n for b, n in zip(begin, (40, 4, 4), strict=True)]
            clefts = np.full(SHAPE, 2**64 - 1, np.uint64)
            clefts[2, 3:5] = 1
            top.create_dataset("volumes/labels/clefts", data=clefts)
            notes = top.create_group("annotations")
            notes.attrs["offset"] = (40.0, 16.0, 12.0)
            notes["ids"] = np.arange(3)
            notes["types"] = np.array([b"presynaptic_site", b"postsynaptic_site", b"comment"])
            notes["locations"] = np.array([[80.0, 12, 16], [80, 12, 40], [0, 0, 0]])
            notes["presynaptic_site/partners"] = np.array([[0, 1]])
    return path


def test_cremi_samples_keep_their_size_and_have_sites(tmp_path):
    files = [cremi_file(tmp_path / "a.hdf"), cremi_file(tmp_path / "a+.hdf", labelled=False)]
    prepared(tmp_path, "cremi", "--samples", "A", "A+", "--hdf", *files, "--pad", "1,2,2")
    labels = ("seg", "syn", "mit")
    volumes = cremi.load_data(tmp_path / "data", ["A", "A+"], labels=labels)
    with h5py.File(files[0]) as top:
        np.testing.assert_array_equal(volumes["A"]["img"], top["volumes/raw"][0:7, 2:18, 1:19])
    assert set(volumes["A"]) == {"img", "seg", "syn", "msk_train", "msk_val", "loc"}
    assert set(volumes["A+"]) == {"img", "loc"}
    assert volumes["A"]["seg"][1, 2, 2] == 0
    assert volumes["A"]["seg"][1:-1, 2:-2, 2:-2].sum() == 9 * (np.prod(SHAPE) - 1)
    assert volumes["A"]["syn"][3, 5:7, 2:-2].all()
    assert volumes["A"]["syn"].sum() == 2 * 14
    sites = cremi.load_data(tmp_path / "data", ["A"], labels=labels, cremi_syn="partners")["A"]["syn"]
    centre = (1 + 2, 2 + 3, 2 + 4)
    for index in np.ndindex(*sites.shape):
        near = [sum(((i - c) * n) ** 2 for i, c, n in zip(index, at, (40, 4, 4), strict=True)) for at in
                (centre, (centre[0], centre[1], centre[2] + 6))]  # fmt: skip
        expected = 0 if min(near) > 60**2 else 1 + int(near[1] < near[0])
        assert sites[index] == expected, index


def test_cremi_again_makes_nothing_and_lacking_labels_say_what_to_do(tmp_path, capsys):
    hdf = cremi_file(tmp_path / "a.hdf")
    for _ in range(2):
        prepared(tmp_path, "cremi", "--samples", "A", "--hdf", hdf)
    assert "is there already" in capsys.readouterr().out
    assert "--aff 1 alone, or mit.h5 of your own" in cremi.hints["mit"]
    assert "where it lies is not known" in refused(capsys, tmp_path, "cremi", "--samples", "B+")
    assert "2 files" in refused(capsys, tmp_path, "cremi", "--samples", "A", "--hdf", hdf, hdf)


def replaced(name, array, **attributes):
    """Return what puts another dataset into a CREMI file."""

    def change(top):
        attrs = {**(top[name].attrs if name in top else {}), **attributes}
        if name in top:
            del top[name]
        top[name] = array
        top[name].attrs.update(attrs)

    return change


@pytest.mark.parametrize("samples", [(), ("--samples", "A")])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (replaced("volumes/raw", np.full((7, 20, 20), 0.5, np.float32)), "type float32, wants bytes"),
        (replaced("volumes/raw", np.full((7, 20, 20), 7, np.uint8), resolution=(0.0, 4.0, 4.0)), "nanometres above 0"),
        (replaced("volumes/labels/neuron_ids", np.full(SHAPE, 9, np.uint64), offset=(0, 0)), "three numbers"),
        (replaced("volumes/labels/neuron_ids", np.full(SHAPE, 9, np.uint64), offset="x"), "three numbers"),
        (replaced("volumes/labels/neuron_ids", np.zeros((0, 4, 4), np.uint64)), "wants a volume with voxels"),
        (replaced("volumes/labels/clefts", np.ones((2, 4, 4), np.uint64)), "the shape of neuron_ids"),
    ],
)
def test_a_cremi_file_is_looked_at_before_it_is_believed(tmp_path, capsys, change, got, samples):
    file = tmp_path / "a.hdf"
    cremi_file(file)
    with h5py.File(file, "r+") as top:
        change(top)
    assert got in refused(capsys, tmp_path, "cremi", *samples, "--hdf", file)
    assert not (tmp_path / "data").exists()
