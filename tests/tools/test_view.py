"""What `deepem view` shows: which layer a file becomes, where it lies, in which colours; what it reads and refuses."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from deepem.io.files import imsave
from deepem.tasks import to_plain
from deepem.tools import view, view_forms, view_server
from deepem.tools.view_layers import opened_layers
from deepem.tools.view_options import ViewOptions, name_files
from deepem.utils.errors import InputError

SIZE = (6, 10, 16)
PLACE = {"voxel_size_nm": [30.0, 8.0, 4.0], "offset": [5, 20, -10]}
EDGES = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def neuroglancer():
    return pytest.importorskip("neuroglancer", reason="neuroglancer is not installed (the extra view has it)")


def volume(dtype=np.uint8, channels: int = 0) -> np.ndarray:
    """Values that tell where they come from."""
    shape = (channels, *SIZE) if channels else SIZE
    return (np.arange(np.prod(shape)).reshape(shape) % 251).astype(dtype)


def save(name: str, array: np.ndarray, **attributes) -> str:
    imsave(array, name, attributes=attributes)
    return name


def options(**given) -> ViewOptions:
    return ViewOptions(**given)


def state_of(*words: str, **given) -> dict:
    with view.opened_viewer(name_files(words), options(**given)) as (viewer, _):
        return viewer.state.to_json()


def layers_of(*words: str, **kinds: str) -> list:
    with opened_layers(name_files(words), kinds, None) as layers:
        return layers


def kind_of(*words: str) -> str:
    return layers_of(*words)[0].kind


# which layer a file becomes


def row(flag: str) -> str:
    from deepem.tasks import choose

    edges, channels = {"long": [(0, 0, 3), (0, 9, 0)]}, {"sem": {"sem": 3}}
    (task,) = choose([flag], edges=edges.get(flag, ()), channels=channels.get(flag))
    return json.dumps([to_plain(task)])


@pytest.mark.parametrize(
    ("flag", "channels", "values", "kind"),
    [
        ("aff", 3, "probability", "affinity"),
        ("long", 2, "probability", "affinity"),
        ("mit", 1, "probability", "probability"),
        ("blv", 2, "probability", "probability"),
        ("sem", 3, "probability", "probability"),
        ("sem", 1, "class", "segmentation"),
        ("mit", 1, "variance", "image"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_prediction_is_what_its_attributes_say(flag, channels, values, kind, dtype):
    edges = [[0, 0, 3], [0, 9, 0]] if flag == "long" else EDGES if flag == "aff" else np.zeros((0, 3), int)
    array = volume(np.uint8, channels)
    array = array / np.float32(255) if dtype == np.float32 and values != "class" else array
    file = save("p.h5", array, axes="czyx", tasks=[flag], rows=row(flag), values=values, edges=edges)
    assert kind_of(file) == kind


@pytest.mark.parametrize(
    ("name", "array", "kind"),
    [
        ("x.npy", volume(np.uint8), "image"),
        ("x.npy", volume(np.uint16), "image"),
        ("x.npy", volume(np.float32), "image"),
        ("x.npy", volume(np.uint64), "segmentation"),
        ("x.npy", volume(np.int32), "segmentation"),
        ("x.npy", volume(np.uint16) // 200 + 1, "segmentation"),
        ("seg.npy", volume(np.uint16), "segmentation"),
        ("img.npy", volume(np.uint8) // 200, "image"),
        ("mit.npy", np.zeros(SIZE, np.uint8), "segmentation"),
        ("mit_msk.npy", volume(np.uint8), "segmentation"),
        ("x.npy", np.zeros(SIZE, np.uint8), "image"),
        ("x.npy", volume(np.float32, 3), "affinity"),
        ("x.npy", volume(np.float32, 4), "probability"),
        ("x.npy", volume(np.uint8, 2), "image"),
    ],
)
def test_a_file_without_attributes_is_what_its_type_name_and_values_say(name, array, kind):
    assert kind_of(save(name, array)) == kind


@pytest.mark.parametrize("kind", ["image", "segmentation"])
def test_a_precomputed_volume_is_what_its_info_says(tmp_path, kind):
    cloudvolume = pytest.importorskip("cloudvolume")
    array = volume(np.uint8).T[..., None].copy()
    options = {"layer_type": kind, "resolution": (4, 8, 30), "voxel_offset": (-10, 20, 5), "progress": False}
    cloudvolume.CloudVolume.from_numpy(array, f"file://{tmp_path}/v", **options)
    (layer,) = layers_of(f"file://{tmp_path}/v")
    assert (layer.kind, layer.scale, layer.offset) == (kind, (30, 8, 4), (5, 20, -10))


def test_kind_says_otherwise():
    file = save("x.npy", volume(np.uint8))
    (layer,) = layers_of(f"a={file}", a="segmentation")
    assert (layer.name, layer.kind) == ("a", "segmentation")


def test_only_a_small_box_is_read_to_find_out(monkeypatch):
    read = []
    stored_read = view_forms.Stored.read
    monkeypatch.setattr(view_forms.Stored, "read", lambda self, box: read.append(box.size) or stored_read(self, box))
    big = np.lib.format.open_memmap("big.npy", mode="w+", dtype=np.uint16, shape=(100, 2000, 2000))
    del big
    layers_of("big.npy")
    assert read == [view_forms.SAMPLE]


@pytest.mark.parametrize(
    ("array", "black_and_white"),
    [
        (volume(np.uint8), (0, 255)),
        (np.linspace(0, 0.5, 960, dtype=np.float32).reshape(SIZE), (0, 1)),
        (np.linspace(-5, 5, 960).reshape(SIZE), (-4.95, 4.95)),
        (np.where(volume(np.float32) > 250, np.nan, 7), (7, 8)),
        (np.full(SIZE, np.nan), (0, 1)),
    ],
)
def test_grey_values_are_stretched_only_where_their_range_is_not_known(array, black_and_white):
    (layer,) = layers_of(save("x.npy", array), x="image")
    assert view_forms.window(layer.seen) == pytest.approx(black_and_white)


# names


def test_layers_are_named_by_file_or_as_the_user_says(folder):
    (folder / "odd=name.h5").touch()
    assert name_files(["d/img.h5", "em=img.tif", "odd=name.h5", "all.h5:volumes/raw", "gs://b/em_v1.2"]) == {
        "img": "d/img.h5",
        "em": "img.tif",
        "odd=name": "odd=name.h5",
        "all:volumes/raw": "all.h5:volumes/raw",
        "em_v1.2": "gs://b/em_v1.2",
    }


def test_files_of_one_name_are_told_apart_by_their_folders():
    files = ["a/x/seg.h5", "b/x/seg.h5", "img.h5"]
    assert name_files(files) == {"a/x/seg": files[0], "b/x/seg": files[1], "img": files[2]}


# where a layer lies


def test_every_layer_lies_where_its_own_attributes_say(neuroglancer):
    save("img.h5", volume(), voxel_size_nm=[30, 8, 4], offset=[5, 20, -10])
    save("aff.h5", volume(np.float32, 3), voxel_size_nm=[30, 16, 8], offset=[5, 10, -5], edges=EDGES)
    with view.opened_viewer(name_files(["aff.h5", "img.h5"]), options()) as (viewer, _):
        state = viewer.state.to_json()
        served = {layer["name"]: served_info(viewer, layer) for layer in state["layers"]}
    assert state["dimensions"] == {"x": [4e-9, "m"], "y": [8e-9, "m"], "z": [30e-9, "m"]}
    assert list(served) == ["img", "aff"]  # the image below
    image, affinity = served["img"], served["aff"]
    assert image["coordinateSpace"] == {"z": [30e-9, "m"], "y": [8e-9, "m"], "x": [4e-9, "m"]}
    assert (image["shape"], image["voxelOffset"]) == ([6, 10, 16], ["5", "20", "-10"])
    assert affinity["coordinateSpace"] == {"c^": [1, ""], "z": [30e-9, "m"], "y": [16e-9, "m"], "x": [8e-9, "m"]}
    assert (affinity["shape"], affinity["voxelOffset"]) == ([3, 6, 10, 16], ["0", "5", "10", "-5"])


def served_info(viewer, layer: dict) -> dict:
    (source,) = layer["source"] if isinstance(layer["source"], list) else [layer["source"]]
    key = source["url"].removeprefix("python://volume/")
    return json.loads(get(f"{address(viewer)}/neuroglancer/info/{key}"))


def address(viewer) -> str:
    return viewer.get_viewer_url().split("/v/")[0]


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120) as reply:
        return reply.read()


def test_the_first_view_is_the_middle_of_what_all_layers_share(neuroglancer):
    save("img.h5", np.zeros((100, 200, 400), np.uint8), voxel_size_nm=[30, 8, 4], offset=[0, 0, 0])
    save("cut.h5", volume(np.uint64), voxel_size_nm=[30, 8, 4], offset=[50, 100, 300])
    state = state_of("img.h5", "cut.h5", layout="xy", window=(640, 480))
    assert state["position"] == [308, 105, 53.5]
    nm_per_pixel = max(16 * 4 / 640, 10 * 8 / 480) * 1.04
    assert state["crossSectionScale"] == pytest.approx(nm_per_pixel / 4)


@pytest.mark.parametrize("window", [(1024, 1024), (2000, 500)])
def test_a_large_volume_is_not_seen_whole_at_first(neuroglancer, window):
    h5py = pytest.importorskip("h5py")
    with h5py.File("big.h5", "w") as file:
        file.create_dataset("main", (3, 4000, 30000, 20000), np.float32, chunks=(1, 64, 64, 64))
    state = state_of("big.h5", window=window, layout="xy")
    voxels = window[0] * window[1] * state["crossSectionScale"] ** 2
    assert 0.8 < voxels * 64 * 3 * 4 / 2**28 <= 1


def test_position_and_zoom_are_voxels_of_the_first_layer(neuroglancer):
    save("img.h5", volume(), **PLACE)
    state = state_of("img.h5", position=(7, 21, -3), zoom=4.0)
    assert state["position"] == [-3, 21, 7.5]
    assert state["crossSectionScale"] == 0.25


def test_a_file_without_a_voxel_size_takes_that_of_the_others_and_a_line_says_so(capsys):
    save("img.h5", volume())
    save("aff.h5", volume(np.float32, 3), edges=EDGES, **PLACE)
    image, affinity = layers_of("img.h5", "aff.h5")
    assert image.scale == affinity.scale == (30, 8, 4)
    assert (
        "warning: img: no voxel size in the file; shown with the [30.0, 8.0, 4.0] nm of aff" in capsys.readouterr().err
    )
    with opened_layers({"img": "img.h5", "aff": "aff.h5"}, {}, (30.0, 4.0, 4.0)) as layers:
        assert [layer.scale for layer in layers] == [(30, 4, 4), (30, 8, 4)]


def test_voxels_of_unknown_size_have_no_scale_bar(neuroglancer):
    state = state_of(save("img.npy", volume()))
    assert state["dimensions"] == {"x": [1, ""], "y": [1, ""], "z": [1, ""]}
    assert state["showScaleBar"] is False


def test_layers_without_a_common_voxel_are_told(capsys):
    save("img.h5", volume(), voxel_size_nm=[8, 8, 8], offset=[0, 0, 0])
    save("seg.h5", volume(np.uint64), voxel_size_nm=[8, 8, 8], offset=[0, 0, 16])
    layers_of("img.h5", "seg.h5")
    assert "seg and img have no voxel in common: offsets (0, 0, 16) and (0, 0, 0)" in capsys.readouterr().err


# what it looks like


def test_edges_have_the_colours_of_their_axes_whatever_their_order(neuroglancer):
    save("aff.h5", volume(np.float32, 6), edges=[[1, 0, 0], [0, 3, 0], [0, 0, 9], [0, 1, 0], [0, 0, -1], [0, 2, 2]])
    (layer,) = state_of("aff.h5")["layers"]
    (found,) = layers_of("aff.h5")
    assert [(one.name, one.colour, one.shown) for one in found.channels] == [
        ("edge_1_0_0", (0, 0, 1), True),
        ("edge_0_3_0", (0, 1, 0), False),
        ("edge_0_0_9", (1, 0, 0), False),
        ("edge_0_1_0", (0, 1, 0), True),
        ("edge_0_0_m1", (1, 0, 0), True),
        ("edge_0_2_2", (0.5, 0.5, 0), False),
    ]
    assert layer["type"] == "image"
    assert layer["opacity"] == 1
    assert "if (edge_1_0_0) { sum += vec3(0.0000, 0.0000, 1.0000) * toNormalized(getDataValue(0));" in layer["shader"]
    assert "#uicontrol bool edge_0_3_0 checkbox(default=false)" in layer["shader"]


def test_classes_have_the_colours_of_other_pictures_and_the_background_none():
    given = {"axes": "czyx", "tasks": ["sem"], "rows": row("sem"), "edges": np.zeros((0, 3), int)}
    save("p.h5", volume(np.float32, 3) / 255, values="probability", **given)
    (layer,) = layers_of("p.h5")
    assert [one.shown for one in layer.channels] == [False, True, True]
    assert layer.channels[1].colour == pytest.approx((0.9, 0.25, 0.2))


def test_classes_of_a_prediction_have_their_colours_as_labels(neuroglancer):
    save("c.h5", volume(np.uint8, 1) % 3, axes="czyx", tasks=["sem"], rows=row("sem"), values="class")
    (layer,) = state_of("c.h5")["layers"]
    assert layer["type"] == "segmentation"
    assert layer["segmentColors"]["1"] == "#e64033"


def test_layers_that_cover_each_other_are_beside_each_other(neuroglancer):
    save("img.h5", volume())
    save("aff.h5", volume(np.float32, 3), edges=EDGES)
    save("seg.npy", volume(np.uint64))
    panels = state_of("img.h5", "aff.h5", "seg.npy", "truth=seg.npy")["layout"]
    assert [[one["layers"] for one in panel["children"]] for panel in panels["children"]] == [
        [["img"], ["img", "aff"]],
        [["img", "seg"], ["img", "truth"]],
    ]
    assert state_of("img.h5", "seg.npy").get("layout", "4panel") == "4panel"
    assert state_of("img.h5", "aff.h5", layout="xz")["layout"] == "xz"


# what the browser gets


def chunk_of(viewer, layer: dict, begin: list[int], end: list[int]) -> np.ndarray:
    (source,) = layer["source"]
    key, factor = source["url"].removeprefix("python://volume/"), ",".join(["1"] * len(begin))
    where = "/".join(",".join(map(str, corner)) for corner in (begin, end))
    return np.load(io.BytesIO(zlib.decompress(get(f"{address(viewer)}/neuroglancer/npz/{key}/{factor}/{where}"))))


@pytest.mark.parametrize("name", ["x.h5", "x.tif", "x.zarr", "x.npy"])
def test_a_slice_reads_the_chunks_that_it_touches_once_and_nothing_else(neuroglancer, monkeypatch, name):
    if name.endswith("zarr"):
        zarr = pytest.importorskip("zarr")
        array = np.arange(70 * 40 * 300, dtype=np.uint32).reshape(70, 40, 300)
        zarr.create_array(name, data=array, chunks=(16, 16, 16))
    else:
        array = np.arange(70 * 40 * 300, dtype=np.uint32).reshape(70, 40, 300)
        save(name, array)
    read = []
    stored_read = view_forms.Stored.read
    with view.opened_viewer({"img": name}, options(kind={"img": "image"})) as (viewer, _):
        (layer,) = viewer.state.to_json()["layers"]
        monkeypatch.setattr(view_forms.Stored, "read", lambda self, box: read.append(box) or stored_read(self, box))
        for _ in range(2):
            chunk = chunk_of(viewer, layer, [33, 2, 3], [34, 6, 14])
            assert np.array_equal(chunk, array[33:34, 2:6, 3:14])
    (box,) = read
    sizes = {"x.zarr": (16, 16, 16), "x.tif": (1, 40, 300)}
    assert box.size == sizes.get(name, (32, 40, 128))


@pytest.mark.parametrize(
    ("shape", "chunks", "side"),
    [
        ((100, 20000, 20000), (1, 512, 512), 8),
        ((100, 20000, 20000), (16, 128, 128), 4),
        ((100, 20000, 20000), (64, 128, 128), 2),
        ((3, 100, 20000, 20000), (1, 64, 128, 128), 1),
        ((3, 100, 300, 300), (1, 64, 128, 128), 8),
    ],
)
def test_coarse_levels_are_offered_where_they_read_little(shape, chunks, side):
    h5py = pytest.importorskip("h5py")
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("main", shape, np.uint8, chunks=chunks)
    (layer,) = layers_of("x.h5")
    assert view_server.coarsest(layer) == side


def test_channels_come_together_and_ids_keep_all_their_bits(neuroglancer):
    affinity, ids = volume(np.float16, 3), volume(np.int64) - 1 + 2**53
    ids[0, 0, 0] = -1
    save("aff.h5", affinity, edges=EDGES)
    save("seg.npy", ids)
    with view.opened_viewer(name_files(["aff.h5", "seg.npy"]), options()) as (viewer, _):
        first, second = viewer.state.to_json()["layers"]
        values = chunk_of(viewer, first, [0, 0, 0, 0], [3, *SIZE])
        labels = chunk_of(viewer, second, [0, 0, 0], list(SIZE))
        assert served_info(viewer, second)["dataType"] == "uint64"
    assert values.dtype == np.float32
    assert np.array_equal(values, affinity)
    assert labels.dtype == np.uint64
    assert np.array_equal(labels.astype(np.int64), ids)
    assert labels[0, 0, 0] == 2**64 - 1


def test_a_precomputed_volume_is_served_as_it_is_stored(neuroglancer, stored):
    path, array = stored
    with view.opened_viewer({"em": path}, options()) as (viewer, windows):
        (layer,) = viewer.state.to_json()["layers"]
        (source,) = layer["source"]
        place = source["url"].removeprefix("precomputed://")
        assert place.startswith(f"{address(viewer)}/")
        assert windows == []
        info = json.loads(get(f"{place}info"))
        assert (info["scales"][0]["voxel_offset"], info["scales"][0]["size"]) == ([10, 20, 5], list(array.shape[::-1]))
        key = info["scales"][0]["key"]
        chunk = get(f"{place}{key}/10-26_20-28_5-9")
        assert np.array_equal(np.frombuffer(chunk, np.uint8).reshape(4, 8, 16), array[:4, :8, :16])
        assert get(f"{place}info", Range="bytes=0-4") == get(f"{place}info")[:5]
        for outside in ("nothing", "../em/info", "%2e%2e/em/info", "mesh/../info"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(place + outside)
    assert not any(view_server.is_inside(name) for name in ("..", "a/../b", "/etc/passwd", "a//b", "a\\b", ""))


def test_a_box_that_cannot_be_read_is_told_once(neuroglancer, capsys):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array("x.zarr", shape=SIZE, chunks=SIZE, dtype="uint8", compressors=zarr.codecs.BloscCodec())
    array[:] = volume()
    (chunk,) = (path for path in Path("x.zarr").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with view.opened_viewer({"img": "x.zarr"}, options(kind={"img": "affinity"})) as (viewer, windows):
        (layer,) = viewer.state.to_json()["layers"]
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                chunk_of(viewer, layer, [0, 0, 0], [2, 2, 2])
        assert isinstance(windows[0].failure, InputError)
    assert capsys.readouterr().err.count("x.zarr: got unreadable voxels") == 1


def test_a_large_volume_makes_no_meshes(neuroglancer, monkeypatch):
    monkeypatch.setattr(view_server, "MESHED", 100)
    with view.opened_viewer({"seg": save("seg.npy", volume(np.uint64))}, options()) as (viewer, _):
        (layer,) = viewer.state.to_json()["layers"]
        key = layer["source"][0]["url"].removeprefix("python://volume/")
        for _ in range(3):
            with pytest.raises(urllib.error.HTTPError, match="405"):
                get(f"{address(viewer)}/neuroglancer/mesh/{key}/5")


def test_leaving_does_not_wait_for_what_the_browser_still_asked_for(neuroglancer, monkeypatch, capfd):
    begun, may_end, read = threading.Event(), threading.Event(), []
    stored_read = view_forms.Stored.read

    def slow(self, box):
        read.append(box)
        begun.set()
        may_end.wait(60)
        return stored_read(self, box)

    file = save("img.h5", volume())
    with view.opened_viewer({"img": file}, options(kind={"img": "affinity"})) as (viewer, _):
        monkeypatch.setattr(view_forms.Stored, "read", slow)
        (layer,) = viewer.state.to_json()["layers"]
        asking = [threading.Thread(target=cut_off, args=(viewer, layer)) for _ in range(40)]
        for thread in asking:
            thread.start()
        begun.wait(60)
        threading.Timer(0.2, may_end.set).start()
    for thread in asking:
        thread.join(60)
    assert len(read) <= (os.cpu_count() or 1)
    assert capfd.readouterr().err == ""


def cut_off(viewer, layer: dict) -> None:
    with suppress(OSError, http.client.HTTPException):
        chunk_of(viewer, layer, [0, 0, 0], [2, 2, 2])


# the command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_on_this_machine_until_it_is_told_to_stop(neuroglancer, verb_env, number):
    save("img.h5", volume(), **PLACE)
    words = [sys.executable, "-m", "deepem", "view", "img.h5", "--state", "state.json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, env=verb_env, **pipes) as process:
        assert process.stdout.readline() == "img  image         6 x 10 x 16 uint8, voxels 30 x 8 x 4 nm from 5,20,-10\n"
        link = process.stdout.readline().strip()
        assert process.stdout.readline() == "serving until Ctrl-C\n"
        assert link.startswith("http://127.0.0.1:")
        assert b"<html" in get(link).lower()
        first = Path("state.json").read_text()
        Path("state.json").unlink()
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")
    assert Path("state.json").read_text() == first
    assert json.loads(first)["layers"][0]["name"] == "img"


def refused(*words: str, capsys) -> str:
    with pytest.raises(SystemExit, match="2"):
        view.main(words)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 + err.count("warning: ")
    return err.splitlines()[-1].removeprefix("deepem view: error: ")


def test_bad_input_is_one_line(capsys):
    save("img.h5", volume(), voxel_size_nm=[8, 8, 8])
    save("other.h5", volume(), voxel_size_nm=[9, 9, 9])
    save("axes.h5", volume(), axes="xyz")
    save("place.h5", volume(), offset=[0.5, 0, 0])
    save("voxels.h5", volume(), voxel_size_nm=[8, 0, 8])
    save("edges.h5", volume(np.float32, 4), edges=EDGES)
    save("f.npy", volume(np.float32))
    save("empty.npy", np.zeros((0, 4, 5), np.uint8))
    save("flat.npy", np.zeros((4, 5), np.uint8))
    for words, line in (
        ([], "FILE: got nothing, wants volumes to show: deepem view img.h5 affinity.h5 seg.h5"),
        (["no.h5"], "no.h5: got no such volume, wants a file that is there"),
        (["a.xyz"], "a.xyz: got the suffix '.xyz', wants one of .h5"),
        (["empty.npy"], "empty.npy: got an array of shape (0, 4, 5), wants a volume with voxels"),
        (["flat.npy"], "flat.npy: got an array of shape (4, 5), wants (Z, Y, X)"),
        (["axes.h5"], "axes.h5: got axes 'xyz', wants 'zyx': transpose the array"),
        (["place.h5"], "place.h5: got offset [0.5, 0.0, 0.0], wants three whole numbers"),
        (["voxels.h5"], "voxels.h5: got voxel_size_nm [8, 0, 8], wants three numbers z, y, x above 0"),
        (["edges.h5"], "edges.h5: got 3 edges for 4 channels, wants an attribute edges"),
        (["img.h5", "other.h5", "f.npy"], "f.npy: got no voxel size, wants --voxel_size Z,Y,X: the other files have"),
        (["f.npy", "--kind", "f=segmentation"], "f.npy: got float32, wants whole numbers"),
        (["edges.h5", "--kind", "edges=segmentation"], "edges.h5: got float32, wants whole numbers"),
        (["img.h5", "--kind", "im=image"], "--kind: got im, wants NAME=KIND with the name of a layer: img"),
        (["img.h5", "--kind", "img=picture"], "--kind: got picture, wants one of image, segmentation, affinity"),
        (["img.h5", "img.h5"], "img.h5: got a second layer named img, wants NAME=FILE with another name"),
        (["img.h5", "--position", "6,0,0"], "--position: got 6,0,0, wants a voxel of img: z,y,x from (0, 0, 0)"),
        (["img.h5", "--port", "65536"], "--port: got 65536, wants a port, 0 to 65535"),
        (["img.h5", "--voxel_size", "1,0,1"], "--voxel_size: got (1.0, 0.0, 1.0), wants three numbers z,y,x above 0"),
        (["img.h5", "--window", "9,9999"], "--window: got 9,9999, wants a width and a height from 16 to 8192"),
        (["img.h5", "--state", "no/s.json"], "--state: got no/s.json, wants a file in a folder that is there"),
        (["img.h5", "--screenshot", "a.jpg"], "--screenshot: got a.jpg, wants a picture to write, such as view.png"),
    ):
        assert refused(*words, capsys=capsys).startswith(line)


def test_an_address_that_cannot_be_served_on_is_one_line(neuroglancer, capsys):
    save("img.h5", volume())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert refused("img.h5", "--port", port, capsys=capsys) == (
            f"--port: got {port}: Address already in use, wants a free port that you may use"
        )
    assert refused("img.h5", "--host", "256.0.0.1", capsys=capsys).startswith("--host: got 256.0.0.1: ")


def test_what_is_not_installed_is_one_line(capsys, monkeypatch):
    save("img.h5", volume())
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    assert refused("img.h5", capsys=capsys) == (
        "neuroglancer: got no package neuroglancer, wants pip install 'deepem[view]'"
    )


def test_without_a_browser_a_line_says_what_to_install(neuroglancer, capsys, monkeypatch):
    save("img.h5", volume())
    monkeypatch.setenv("PATH", os.devnull)
    assert refused("img.h5", "--screenshot", "a.png", capsys=capsys) == (
        "--screenshot: got no browser on this machine, wants Chromium: apt-get install chromium, or any Chrome on the "
        "PATH"
    )
    assert not Path("a.png").exists()


@pytest.mark.parametrize(
    ("script", "got"), [("exit 7", "chromium ended with code 7"), ("exec sleep 600", "no picture from")]
)
def test_a_browser_that_draws_nothing_is_one_line(neuroglancer, capsys, monkeypatch, folder, script, got):
    from deepem.tools import view_picture

    save("img.h5", volume())
    (folder / "chromium").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(view_picture, "PATIENCE_S", 0.5)
    assert got in refused("img.h5", "--screenshot", "a.png", capsys=capsys)
    assert not Path("a.png").exists()
    assert threading.active_count() < 20
