"""What `deepem view` draws in a real Chromium: every pixel is the voxel of the array that belongs there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepem.io.files import imsave
from deepem.utils.chromium import find_chromium

SIZE, OFFSET = (6, 20, 32), (5, 20, -10)
CENTRE = (3, 10, 16)
VOXEL = [30.0, 8.0, 4.0]
"""At two pixels per voxel of x, a voxel is 2 pixels wide and 4 high."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed (the extra view has it)")
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(env: dict[str, str], *words: str, offset: tuple[int, ...]) -> np.ndarray:
    """What the command draws with the voxel CENTRE of the arrays in the centre, (Y, X, RGB)."""
    position, window = ",".join(str(o + c) for o, c in zip(offset, CENTRE, strict=True)), "1000,500"
    command = [sys.executable, "-m", "deepem", "view", *words, "--screenshot", "a.png", "--position", position]
    done = subprocess.run(
        [*command, "--zoom", "2", "--window", window], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["a.png"]), done.stderr
    drawn = cv2.imread("a.png")[..., ::-1]
    assert drawn.shape == (500, 1000, 3)
    return drawn.astype(int)


def enlarged(section: np.ndarray) -> np.ndarray:
    """Pixels (Y, X, RGB) of a section (Y, X) or (Y, X, RGB)."""
    rgb = section if section.ndim == 3 else np.stack([section] * 3, -1)
    return rgb.repeat(4, 0).repeat(2, 1).astype(int)


def panels(drawn: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    """The panels of a picture, by the number in each row; black lines lie between them."""
    found = []
    rows = runs(~(drawn[:, 2] == 0).all(-1), len(counts))
    for (top, bottom), count in zip(rows, counts, strict=True):
        found += [drawn[top:bottom, a:b] for a, b in runs(~(drawn[top + 2, :] == 0).all(-1), count)]
    return found


def runs(inside: np.ndarray, count: int) -> list[tuple[int, int]]:
    steps = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(int), [0]])))
    assert len(steps) == 2 * count, steps
    return [(int(a), int(b)) for a, b in steps.reshape(-1, 2)]


def cut(panel: np.ndarray) -> np.ndarray:
    """The pixels of the section, in which the voxel CENTRE has to be in the centre of the panel.

    A panel may have an odd number of pixels; the centre is then on either side of the middle pixel.
    """
    background = panel[2, 2]
    shown = (panel[:-60] != background).any(-1)  # above the scale bar
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    found = panel[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert found.shape == (4 * SIZE[1], 2 * SIZE[2], 3)
    centre = rows[0] + 4 * CENTRE[1], columns[0] + 2 * CENTRE[2]
    assert np.abs(np.subtract(centre, np.divide(panel.shape[:2], 2))).max() <= 1
    return found


def test_image_affinities_and_segments_are_those_of_the_arrays_pixel_by_pixel(verb_env):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, SIZE, np.uint8)
    affinity = rng.integers(0, 256, (3, *SIZE)) / np.float32(255)
    ids = np.array([0, 7, 2**40 + 7, 2**63 + 1], np.uint64)
    segments, truth = (ids[rng.integers(0, 4, SIZE)] for _ in range(2))
    attributes = {"voxel_size_nm": VOXEL, "offset": list(OFFSET)}
    imsave(image, "img.h5", attributes=attributes)
    imsave(affinity, "aff.h5", attributes={**attributes, "edges": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]})
    imsave(segments, "seg.h5", attributes=attributes)
    imsave(truth, "true.h5", attributes=attributes)
    drawn = panels(picture(verb_env, "img.h5", "aff.h5", "seg.h5", "true.h5", offset=OFFSET), [2, 2])
    grey = enlarged(image[3])
    assert (cut(drawn[0]) == grey).all()
    assert (cut(drawn[1]) == enlarged(np.rint(255 * affinity[::-1, 3].transpose(1, 2, 0)))).all()
    colours = [colours_of(cut(drawn[i]), grey, one[3], ids) for i, one in ((2, segments), (3, truth))]
    assert np.abs(colours[0] - colours[1]).max() <= 6
    assert min(np.abs(a - b).max() for i, a in enumerate(colours[0]) for b in colours[0][:i]) > 20


def colours_of(drawn: np.ndarray, grey: np.ndarray, section: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The colour of each id but 0, which are 40 % of the pixels and the image 60 %; the same in all its voxels."""
    at = section.repeat(4, 0).repeat(2, 1)
    assert (drawn[at == 0] == grey[at == 0]).all()
    found = []
    for one in ids[1:]:
        colour = (drawn[at == one] - 0.6 * grey[at == one]) / 0.4
        assert np.ptp(colour, axis=0).max() <= 6  # rounding, over 0.4
        found.append(colour.mean(0))
    return np.array(found)


def test_every_format_is_drawn_alike(verb_env, folder):
    pytest.importorskip("zarr")
    rng = np.random.default_rng(1)
    files = ["a.h5", "b.tif", "c.zarr", "d.npy", f"file://{folder}/e"]
    images = [rng.integers(1, 256, SIZE, np.uint8) for _ in files]
    for file, image in zip(files, images, strict=True):
        imsave(image, file, attributes={"voxel_size_nm": VOXEL, "offset": [0, 0, 0]})
    words = [*files, "--voxel_size", ",".join(map(str, VOXEL))]
    drawn = panels(picture(verb_env, *words, offset=(0, 0, 0)), [3, 2])
    for image, panel in zip(images, drawn, strict=True):
        assert (cut(panel) == enlarged(image[3])).all()


def test_a_picture_of_a_damaged_file_is_refused(verb_env):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array("x.zarr", shape=SIZE, chunks=SIZE, dtype="uint8", compressors=zarr.codecs.BloscCodec())
    array[:] = 9
    (chunk,) = (path for path in Path("x.zarr").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    command = [sys.executable, "-m", "deepem", "view", "x.zarr", "--kind", "x=affinity", "--screenshot", "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=verb_env)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("deepem view: error: x.zarr: got unreadable voxels")
    assert not Path("a.png").exists()
