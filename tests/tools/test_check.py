"""`deepem check`: each fault that is seeded is found and named; volumes that are right are left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from deepem.data.synth.volume import make_volume
from deepem.tools import check, checkup

DATA = Path(__file__).parents[3] / "shared" / "data"

MODULE = """
import h5py, os
from deepem.data.emio import lazily, imread

data_info = {"a": "", "b": ""}
splits = {"train": ["a"], "val": ["b"]}

def load_data(data_dir, data_ids=None, *, lazy=False, **_):
    volumes = {}
    for id in data_ids:
        with h5py.File(f"{data_dir}/{id}.h5") as file:
            keys = list(file)
        read = lazily if lazy and os.environ.get("LAZY") else imread
        volumes[id] = {key: read(f"{data_dir}/{id}.h5:{key}") for key in keys}
    return volumes
"""

SHAPE = (20, 112, 112)
Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def good() -> dict[str, Arrays]:
    """Two synthetic volumes with instances and mitochondria."""
    made = {"a": make_volume("v1", SHAPE), "b": make_volume("v2", SHAPE)}
    return {id: {key: np.asarray(volume[key]) for key in ("img", "seg", "mit")} for id, volume in made.items()}


@pytest.fixture
def doctor(tmp_path: Path, good: dict[str, Arrays], capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Writes the volumes with a change, has them looked at, and returns the exit code and what was found."""

    def look(change: Callable[[Arrays, Arrays], None] = lambda a, b: None, *words: str) -> tuple[int, list[Any]]:
        volumes = {id: dict(arrays) for id, arrays in good.items()}
        change(volumes["a"], volumes["b"])
        (tmp_path / "own.py").write_text(MODULE)
        for id, arrays in volumes.items():
            with h5py.File(tmp_path / f"{id}.h5", "w") as file:
                for key, array in arrays.items():
                    made = file.create_dataset(key, data=array, chunks=tuple(min(n, 16) for n in array.shape))
                    made.attrs["voxel_size_nm"] = (40, 8, 8)
        code = check.main(["--data", f"{tmp_path}/own.py", "--data_dir", str(tmp_path), "--aff", "1", "--mit", "1",
                           "--fov", "8,64,64", "--width", "4", "8", "--json", f"{tmp_path}/out.json",
                           "--out", f"{tmp_path}/out.png", *words])  # fmt: skip
        found = json.loads((tmp_path / "out.json").read_text())["findings"]
        told = capsys.readouterr().out.splitlines()
        assert told[-1] == (f"{len(found)} findings" if found else "nothing found")
        assert cv2.imread(f"{tmp_path}/out.png") is not None
        return code, found

    return look


def test_volumes_that_are_right_are_left_alone(doctor):
    assert doctor() == (0, [])


def rolled(array: Any, *shift: int) -> Any:
    return np.roll(array, shift, (0, 1, 2))


def swapped(array: Any) -> Any:
    out = array.copy()
    out[[9, 10]] = out[[10, 9]]
    return out


def with_section(array: Any, value: Any) -> Any:
    out = array.copy()
    out[7] = value
    return out


def halved(array: Any) -> Any:
    out = np.zeros_like(array)
    small = array[:, ::2, ::2]
    out[:, : small.shape[1], : small.shape[2]] = small
    return out


def with_nan(image: Any) -> Any:
    out = image.astype(np.float32) / 255
    out[3, 4, 5] = np.nan
    return out


def per_section(seg: Any) -> Any:
    return np.where(seg > 0, seg + 1000 * np.arange(len(seg))[:, None, None], 0).astype(np.int32)


FAULTS: dict[str, tuple[str, str, Callable[[Arrays, Arrays], None]]] = {
    "label with y and x exchanged": ("axes", "a seg", lambda a, b: a.update(seg=a["seg"].transpose(0, 2, 1).copy())),
    "label stored x, y, z": ("axes", "a seg", lambda a, b: a.update(seg=a["seg"].transpose(2, 1, 0).copy())),
    "z reversed between them": ("mirrored", "a seg", lambda a, b: a.update(seg=a["seg"][::-1].copy())),
    "x reversed between them": ("mirrored", "a mit", lambda a, b: a.update(mit=a["mit"][..., ::-1].copy())),
    "shifted in the section": ("shifted", "a seg", lambda a, b: a.update(seg=rolled(a["seg"], 0, 7, -4))),
    "shifted by two sections": ("shifted", "a seg", lambda a, b: a.update(seg=rolled(a["seg"], 2, 0, 0))),
    "label of half the size": ("scaled", "a seg", lambda a, b: a.update(seg=a["seg"][:, ::2, ::2].copy())),
    "label of half the size, padded": ("scaled", "a seg", lambda a, b: a.update(seg=halved(a["seg"]))),
    "sections along x": ("axes", "a img", lambda a, b: a.update(
        {key: np.ascontiguousarray(array.transpose(1, 2, 0)) for key, array in a.items()})),
    "ids wrapped to a byte": ("ids merged", "a seg", lambda a, b: a.update(seg=(a["seg"] % 8).astype(np.uint8))),
    "ids per section": ("ids per section", "a seg", lambda a, b: a.update(seg=per_section(a["seg"]))),
    "image cast from uint16": ("wrapped", "a img", lambda a, b: a.update(
        img=(a["img"].astype(np.uint16) * 40 + 7).astype(np.uint8))),
    "image that ran over a little": ("wrapped", "a img", lambda a, b: a.update(
        img=(a["img"].astype(np.uint16) * 2).astype(np.uint8))),
    "empty section": ("empty section", "a img", lambda a, b: a.update(img=with_section(a["img"], 0))),
    "constant section": ("empty section", "b img", lambda a, b: b.update(img=with_section(b["img"], 130))),
    "repeated section": ("repeated section", "a img", lambda a, b: a.update(img=with_section(a["img"], a["img"][6]))),
    "sections out of order": ("out of order", "a img", lambda a, b: a.update(img=swapped(a["img"]))),
    "NaN": ("nan", "a img", lambda a, b: a.update(img=with_nan(a["img"]), seg=a["seg"])),
    "float label": ("float label", "a seg", lambda a, b: a.update(seg=a["seg"].astype(np.float32))),
    "ids beyond the type": ("ids beyond the type", "a seg", lambda a, b: a.update(
        seg=np.where(a["seg"] == 3, 2**64 - 1, a["seg"].astype(np.uint64)))),
    "label 0 everywhere": ("all zero", "a seg", lambda a, b: a.update(seg=np.zeros_like(a["seg"]))),
    "label 0 nowhere": ("no zero", "a mit", lambda a, b: a.update(mit=a["mit"] + 1)),
    "class never there": ("class never there", "--mit", lambda a, b: a.update(mit=np.zeros_like(a["mit"]))),
    "mask that covers nothing": ("empty mask", "a msk", lambda a, b: a.update(msk=np.zeros(SHAPE, np.uint8))),
    "masks that overlap": ("train and val overlap", "a msk_val", lambda a, b: a.update(
        msk_train=np.ones(SHAPE, np.uint8), msk_val=np.ones(SHAPE, np.uint8))),
    "the same volume twice": ("train and val overlap", "b", lambda a, b: b.update(a)),
    "contrast jump": ("contrast jump", "a img", lambda a, b: a.update(img=(a["img"] // 8 + 10).astype(np.uint8))),
    "image inverted": ("inverted", "a img", lambda a, b: a.update(img=255 - a["img"])),
    "uint16 image": ("refused", "a img", lambda a, b: a.update(img=a["img"].astype(np.uint16) * 90)),
}  # fmt: skip


QUICK = {"label with y and x exchanged", "shifted in the section", "image cast from uint16", "uint16 image"}


@pytest.mark.parametrize("fault", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAULTS])
def test_a_seeded_fault_is_found_and_named(doctor, fault):
    code, where, change = FAULTS[fault]
    exit_code, found = doctor(change)
    assert exit_code == 3
    mine = [one for one in found if one["code"] == code and (one["where"].startswith(where) or code == "inverted")]
    assert mine, [(one["code"], one["where"]) for one in found]
    assert mine[0]["what"]
    assert mine[0]["remedy"]


def test_missing_chunks_are_found(doctor, tmp_path, monkeypatch, good):
    monkeypatch.setenv("LAZY", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = h5py.Group.create_dataset

    def lacking(self, name, data, **more):
        made = real(self, name, shape=data.shape, dtype=data.dtype, **more)
        made[:16] = data[:16]
        made[16:, 16:] = data[16:, 16:]
        return made

    monkeypatch.setattr(h5py.Group, "create_dataset", lacking)
    code, found = doctor()
    assert code == 3
    assert {one["where"] for one in found if one["code"] == "chunks missing"} >= {"a img", "a seg"}


@pytest.mark.slow
def test_a_network_that_pools_sections_first_is_told(doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("LAZY", "1")  # the files tell the voxel size
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "net.py"
    model.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, out):\n"
        "        super().__init__()\n"
        "        self.pool = nn.MaxPool3d(2)\n"
        "        self.up = nn.Upsample(scale_factor=2)\n"
        "        self.heads = nn.ModuleDict({k: nn.Conv3d(1, s[0], 1) for k, s in out.items()})\n"
        "    def forward(self, x):\n"
        "        x = self.up(self.pool(x))\n"
        "        return {k: head(x) for k, head in self.heads.items()}\n"
        "def create_model(*, in_spec, out_spec, width: list[int] = [4]):\n"
        "    return Net(out_spec)\n"
    )
    code, found = doctor(lambda a, b: None, "--model", str(model))
    assert (code, [one["code"] for one in found]) == (3, ["pooling"])


def test_flags_that_cannot_be_used_are_bad_input(capsys):
    with pytest.raises(SystemExit) as ended:
        check.main(["--data", "deepem.data.dataset.synthetic", "--aff", "1", "--train_ids", "nowhere"])
    assert ended.value.code == 2
    assert "--train_ids: got nowhere" in capsys.readouterr().err.splitlines()[-1]


REAL = """
from deepem.data.emio import lazily

data_info = {ids}
splits = {{"train": {ids}, "val": []}}

def load_data(data_dir, data_ids=None, **_):
    return {{id: {{key: lazily(f"{{data_dir}}/{{id}}/{{key}}.h5")for key in ("img", "seg")}} for id in data_ids}}
"""


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the volumes are not here")
@pytest.mark.parametrize("ids", [("gala",), ("nuclei/1135", "nuclei/1136"), ("fib25",)])
def test_no_false_alarm_on_real_volumes(ids, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    for id in set(ids):
        (folder / id).mkdir(parents=True)
        for key in ("img", "seg"):
            (folder / id / f"{key}.h5").symlink_to(DATA / id / f"{key}.h5")
    module = tmp_path / "real.py"
    module.write_text(REAL.format(ids=list(ids)))
    words = ["--data", str(module), "--data_dir", str(folder), "--aff", "1", "--fov", "16,64,64", "--width", "4"]
    code = check.main(words)
    assert code == 0, capsys.readouterr().out


@pytest.mark.slow
def test_no_false_alarm_on_synthetic_tissue():
    labels = "--aff 1 --mit 1 --mye 1 --blv 1 --glia 1 --psd 1"
    words = f"--data deepem.data.dataset.synthetic --fov 8,64,64 --width 4 --synth_size 24,192,192 {labels}"
    assert check.main(words.split()) == 0


def test_the_screen_says_what_a_run_takes(doctor, tmp_path, capsys):
    doctor()
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["expected"]["largest_patch"] == list(SHAPE)
    assert told["expected"]["samples_per_s"] > 0
    assert told["volumes"]["a"]["labels"]["seg"]["cut"] > 0
    assert checkup.Report().plain() == {"volumes": {}, "findings": [], "notes": [], "expected": {}}
