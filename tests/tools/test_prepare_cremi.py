"""CREMI's file becomes the folder that the dataset module reads: right voxels in right places, or nothing at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import h5py
import numpy as np
import pytest

from deepem.data.dataset.flyem import cremi_b
from deepem.data.emio import imread

NOTHING = np.uint64(2**64 - 1)
SHAPE, BEGIN, WHOLE = (5, 12, 18), (2, 8, 5), (9, 30, 30)
PAD = (2, 2, 2)


def cremi_file(path, padded=True):
    """A small file in CREMI's format; every voxel of the image tells where it is."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices(WHOLE if padded else SHAPE)
    with h5py.File(path, "w") as top:
        raw = top.create_dataset("volumes/raw", data=(z * 20 + y // 2 * 3 + x // 2).astype(np.uint8))
        raw.attrs["resolution"] = (40.0, 4.0, 4.0)
        ids = rng.integers(1, 4, SHAPE).astype(np.uint64)
        ids[:, ::2, ::2] = NOTHING
        labels = top.create_dataset("volumes/labels/neuron_ids", data=ids)
        labels.attrs["resolution"] = (40.0, 4.0, 4.0)
        if padded:
            labels.attrs["offset"] = tuple(n * nm for n, nm in zip(BEGIN, (40.0, 4.0, 4.0), strict=True))
        clefts = np.full(SHAPE, NOTHING)
        clefts[2, 4:8, 6:10] = 7
        top.create_dataset("volumes/labels/clefts", data=clefts)
    return path


@pytest.fixture(scope="module")
def prepare(root):
    def run(*words, **more):
        command = [sys.executable, root / "deepem", "prepare", "cremi", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, **more)

    return run


@pytest.fixture
def made(prepare, tmp_path):
    hdf = cremi_file(tmp_path / "b.hdf")
    done = prepare("--hdf", hdf, "--data_dir", tmp_path / "data", "--pad", "2,2,2", "--glia_ids", 2)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / cremi_b.FOLDER
    return {file.stem: imread(file) for file in folder.glob("*.h5")}, hdf, tmp_path


def test_every_file_is_made_at_half_size_with_a_margin(made):
    volumes, _, _ = made
    assert set(volumes) == {"img", "seg", "seg_d3_b0", "syn", "glia", "msk_train", "msk_val"}
    assert {volume.shape for volume in volumes.values()} == {(5 + 4, 6 + 4, 9 + 4)}


def test_image_and_labels_show_the_same_place(made):
    volumes, hdf, _ = made
    with h5py.File(hdf) as top:
        raw, ids = top["volumes/raw"][()].astype(float), top["volumes/labels/neuron_ids"][()]
    seg = volumes["seg"][2:-2, 2:-2, 2:-2]
    for z, y, x in np.ndindex(*seg.shape):
        at = tuple(b + f * n for b, f, n in zip(BEGIN, (1, 2, 2), (z, y, x), strict=True))
        mean = raw[at[0], at[1] : at[1] + 2, at[2] : at[2] + 2].mean()
        assert abs(float(volumes["img"][z + 2, y + 2, x + 2]) - mean) <= 0.5
        four = ids[z, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()
        four = np.where(four == NOTHING, 0, four).tolist()
        assert four.count(seg[z, y, x]) == max(four.count(i) for i in four)


def test_around_the_labels_the_image_goes_on_and_labels_are_zero(made):
    volumes, hdf, _ = made
    with h5py.File(hdf) as top:
        raw = top["volumes/raw"][()].astype(float)
    z, y, x = (b - f * p for b, f, p in zip(BEGIN, (1, 2, 2), PAD, strict=True))
    assert abs(float(volumes["img"][0, 0, 0]) - raw[z, y : y + 2, x : x + 2].mean()) <= 0.5
    for key, volume in volumes.items():
        inner = np.zeros(volume.shape, bool)
        inner[2:-2, 2:-2, 2:-2] = True
        assert key == "img" or not volume[~inner].any(), key


def test_masks_are_disjoint_and_cover_what_is_labelled(made):
    volumes, _, _ = made
    both = volumes["msk_train"] + volumes["msk_val"]
    assert (both[2:-2, 2:-2, 2:-2] == 1).all()
    assert volumes["msk_train"].sum() == 4 * volumes["msk_val"].sum()


def test_clefts_glia_and_eroded_borders(made):
    volumes, _, _ = made
    syn = np.zeros((9, 10, 13), np.uint8)
    syn[4, 4:6, 5:7] = 1
    np.testing.assert_array_equal(volumes["syn"], syn)
    np.testing.assert_array_equal(volumes["glia"], volumes["seg"] == 2)
    seg = volumes["seg"]
    for z, y, x in np.ndindex(*seg.shape):
        around = seg[z, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        assert volumes["seg_d3_b0"][z, y, x] == (seg[z, y, x] if (around == seg[z, y, x]).all() else 0)


def test_the_module_reads_it(made):
    _, _, tmp_path = made
    volume = cremi_b.load_data(tmp_path / "data", ["cremi_b"], labels=("seg", "mit", "syn"))["cremi_b"]
    assert set(volume) == {"img", "seg", "syn", "msk_train", "msk_val", "loc"}


def test_without_tissue_around_it_is_mirrored(prepare, tmp_path):
    hdf = cremi_file(tmp_path / "b.hdf", padded=False)
    assert prepare("--hdf", hdf, "--data_dir", tmp_path, "--pad", "2,4,6").returncode == 0
    img = imread(tmp_path / cremi_b.FOLDER / "img.h5")
    np.testing.assert_array_equal(img, np.pad(img[2:-2, 4:-4, 6:-6], ((2, 2), (4, 4), (6, 6)), mode="symmetric"))


def test_real_volumes_are_never_overwritten(made, prepare):
    _, hdf, tmp_path = made
    again = prepare("--hdf", hdf, "--data_dir", tmp_path / "data")
    assert again.returncode == 2
    assert "moved away" in again.stderr


@pytest.mark.parametrize("fault", ["absent", "truncated", "unlabelled", "checksum"])
def test_a_bad_file_is_one_line_and_nothing_is_written(prepare, tmp_path, fault):
    hdf, words = tmp_path / "b.hdf", []
    if fault != "absent":
        cremi_file(hdf)
    if fault == "truncated":
        hdf.write_bytes(hdf.read_bytes()[:3000])
    if fault == "unlabelled":
        with h5py.File(hdf, "a") as top:
            del top["volumes/labels/neuron_ids"]
    if fault == "checksum":
        words = ["--sha256", "0" * 64]
    done = prepare("--hdf", hdf, "--data_dir", tmp_path / "data", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"deepem prepare cremi: error: {hdf}: got ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.fixture
def server(tmp_path):
    """A web server on this machine over a folder with CREMI's file."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "www"
    folder.mkdir()
    cremi_file(folder / "b.hdf")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as web:
        thread = Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}", folder
        web.shutdown()
        thread.join()


def test_a_download_is_checked_kept_and_used_again(prepare, tmp_path, server):
    url, www = server
    digest = hashlib.sha256((www / "b.hdf").read_bytes()).hexdigest()
    data = tmp_path / "data"
    done = prepare("--url", f"{url}/b.hdf", "--data_dir", data, "--pad", "1,1,1", "--sha256", digest)
    assert done.returncode == 0, done.stderr
    assert "100 %" in done.stderr
    assert (data / "b.hdf.sha256").read_text().split()[0] == digest
    (www / "b.hdf").unlink()
    again = prepare("--url", f"{url}/b.hdf", "--data_dir", data)
    assert "moved away" in again.stderr  # it came as far as the folder: nothing was downloaded
    (data / "b.hdf").write_bytes(b"other")
    assert "checksum" in prepare("--url", f"{url}/b.hdf", "--data_dir", data).stderr


def test_a_failed_download_leaves_nothing(prepare, tmp_path, server):
    url, _ = server
    done = prepare("--url", f"{url}/gone.hdf", "--data_dir", tmp_path / "data")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--hdf" in done.stderr
    assert list((tmp_path / "data").iterdir()) == []
