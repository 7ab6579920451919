"""The tables of DeepEM's own dataset modules: ids, files, and what is done to labels and masks."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from deepem.build.selection import DataSet, choose_ids
from deepem.cli import plugins
from deepem.data.dataset.flyem import cremi_b
from deepem.data.emio import imsave
from deepem.data.table import NOTHING, Made, folder_of, plus, rows
from deepem.data.volume import compact
from deepem.utils.errors import InputError

SHAPE = (2, 4, 6)
PUBLIC = (
    *(f"flyem/{name}" for name in ("cremi_b_mip1", "cremi_b_segd", "cremi_dodam_mip1", "focused_annotation")),
    *(f"flyem/{name}" for name in ("focused_annotation_mito", "focused_annotation_v1", "focused_v0", "focused_v1")),
    *("flyem/sparse_annotation", "flyem/sparse_v0"),
    *(f"kasthuri11/train216_val40_test100/{name}" for name in ("mip1/seg-m0", "mip1/seg-m0b", "no_pad")),
    *(f"kasthuri11/train216_val40_test100/{name}" for name in ("seg-m0", "seg-m0b")),
    *("minnie/pinky_basil_minnie", "pinky/base", "pinky/mip0_padded_x512_y512_z32"),
    *("pinky_basil/mip0_padded_x512_y512_z32", "pinky_basil/mip1_padded_x512_y512_z32"),
)
LABELS = ("seg", "bdr", "syn", "psd", "mit", "mye", "fld", "blv", "glia")


def module(name):
    return importlib.import_module(f"deepem.data.dataset.{name.replace('/', '.').replace('-', '_')}")


def leaves(table):
    """Every row of a table, those of supersets too."""
    return {f"{id}/{m}" if m else id: r for id, row in table.items() for m, r in row.get("members", {"": row}).items()}


def files_of(row):
    """Every file of a row."""
    values = [value for key, value in row.items() if key not in ("dir", "loc", "soft") and value != NOTHING]
    return {name for value in values for name in (value.files() if isinstance(value, Made) else [value])}


def fill(folder, table, make):
    """Write every file that the rows need: `make(id, name)`."""
    for id, row in leaves(table).items():
        for name in files_of(row):
            imsave(make(id, name), folder_of(row, folder) / name)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize(
    "word", ["{}", "deepem.data.dataset.{}", "deepem/data/dataset/{}.py", "old/deepem/data/dataset/{}.py"]
)
def test_both_the_public_name_and_ours_are_accepted(name, word):
    given = word.format(name if "/" in word else name.replace("/", "."))
    assert plugins.load("dataset", given) is module(name)
    assert plugins.load("dataset", given.replace("-", "_")) is module(name)


def test_ids_and_files_are_those_of_the_public_modules(root):
    path = root.parent / "shared" / "public_datasets.json"
    if not path.is_file():
        pytest.skip("the list of public layouts is not here")
    listed = json.loads(path.read_text())
    assert set(listed) == set(PUBLIC)
    for name, groups in listed.items():
        ours = module(name).data_info
        if isinstance(groups, dict):
            joined = [id for part in groups["joins"] for id in module(f"flyem/{part}").data_info]
            assert list(ours) == joined, name
            continue
        for group in groups:
            base = group["base"]
            volumes = group.get("volumes")
            if volumes is None:
                members = ours[group["superset"]]["members"]
                volumes = {id: {"dir": f"{id}/{group['each']['dir']}", **group["each"]} for id in members}
                for id in members:
                    volumes[id] = {**group["each"], "dir": f"{id}/{group['each']['dir']}"}
                assert list(members) == [f"svol{n:03d}" for n in range(1, 45)]
                ours = members
            for id, volume in volumes.items():
                _same_row(name, id, base, volume, ours[id])
        if "superset" not in groups[0]:
            assert list(ours) == [id for group in groups for id in group["volumes"]], name


def _same_row(name, id, base, volume, row):
    folder = volume.get("dir", id.removesuffix("a") if id[:3] == "vol" else id)
    dirs = [row["dir"]] if isinstance(row["dir"], str) else row["dir"]
    assert "/".join(filter(None, (base, folder))) in dirs, (name, id)
    assert row["loc"] == volume["locations"]
    files = dict(volume["files"])
    if files["msk"] == "msk" or id == "stitched_vol19-vol34":
        del files["msk"]
        assert (row["msk_train"], row["msk_val"]) == ("msk_train.h5", "msk_val.h5")
        assert "msk" not in row
    if "seg_d3_b0" in files and "seg" in row:
        files["seg"] = files["seg_d3_b0"]
    for key in {*files} - {"seg_d3_b0"}:
        if name.endswith("_mito") and key not in ("img", "mit", "msk"):
            assert key not in row
            continue
        value = row[key]
        assert (value.file if isinstance(value, Made) else value) == files[key], (name, id, key)
    given = {key for key, value in row.items() if value != NOTHING}
    assert given - {"dir", "loc", "soft", "msk_train", "msk_val", "psd_msk", "fld_msk"} <= {*files}, (name, id)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_row_is_read_and_its_volume_is_whole(tmp_path, name):
    mod = module(name)
    fill(tmp_path, mod.data_info, lambda id, file: np.ones(SHAPE, np.uint8))
    volumes = mod.load_data(tmp_path, list(mod.data_info), labels=LABELS)
    assert list(volumes) == list(mod.data_info)
    for id, volume in volumes.items():
        checked = compact(id, volume, LABELS, "train")
        parts = [checked] if "img" in checked else checked.values()
        assert all("img" in part and "msk" in part for part in parts)


@pytest.mark.parametrize("name", [*PUBLIC, "flyem/cremi_b"])
def test_defaults_train_on_ids_that_there_are(name):
    mod = module(name)
    data = DataSet(plugins.PlugIn("dataset", name, mod, {}))
    train, val = choose_ids([data], None, None)
    assert {ref.id for ref in (*train, *val)} <= set(mod.data_info)
    alike = {ref.id for ref in train} & {ref.id for ref in val}
    for id in alike if len(mod.data_info) > 1 else ():
        assert {"msk_train", "msk_val"} <= set(mod.data_info[id])
    assert not {"test"} & {ref.id for ref in (*train, *val)}


def numbered(id, name):
    """A file whose voxels along x count from 0, ids, or ones for images and masks."""
    one = np.arange(SHAPE[2]) if name.startswith("seg") else np.ones(SHAPE[2])
    return np.broadcast_to(one, SHAPE).astype(np.uint8)


def test_glia_cells_leave_the_mask_but_not_that_of_glia(tmp_path):
    mod = module("flyem/cremi_b_mip1")
    fill(tmp_path, mod.data_info, numbered)
    ids = np.array([150, 1, 151, 2, 3, 2541], np.uint16)
    imsave(np.broadcast_to(ids, SHAPE).copy(), tmp_path / cremi_b.FOLDER / "seg.h5")
    plain = mod.load_data(tmp_path, labels=LABELS)["cremi_b"]
    assert plain["msk"].all()
    assert "glia_msk" not in plain
    masked = mod.load_data(tmp_path, labels=LABELS, glia_mask=True)["cremi_b"]
    np.testing.assert_array_equal(masked["msk"][0, 0], [0, 1, 0, 1, 1, 0])
    assert masked["glia_msk"].all()
    np.testing.assert_array_equal(masked["bdr"][0, 0], [1, 0, 0, 0, 0, 0])


def test_lamellae_become_background_and_other_objects_are_masked_out(tmp_path):
    mod = module("flyem/focused_annotation_v1")
    fill(tmp_path, mod.data_info, numbered)
    for file in ("seg.h5", "seg_d3_b0.h5"):
        ids = np.broadcast_to(np.array([52, 37, 1, 2, 9, 0]), SHAPE).astype(np.uint16)
        imsave(ids, tmp_path / mod.data_info["vol011"]["dir"] / file)
    volumes = mod.load_data(tmp_path, ["vol011", "vol010", "vol001"], labels=LABELS)
    np.testing.assert_array_equal(volumes["vol011"]["seg"][0, 0], [0, 37, 1, 2, 9, 0])
    np.testing.assert_array_equal(volumes["vol011"]["msk"][0, 0], [1, 0, 1, 1, 1, 1])  # 9 is a trachea: no effect
    np.testing.assert_array_equal(volumes["vol010"]["msk"][0, 0], [1, 0, 1, 1, 1, 0])
    assert not volumes["vol001"]["mit"].any()
    assert volumes["vol001"]["mit"].shape == SHAPE


def test_the_superset_holds_the_folders_that_are_there(tmp_path):
    mod = module("flyem/sparse_annotation")
    some = {id: row for id, row in mod.MEMBERS.items() if id in ("svol003", "svol044")}
    fill(tmp_path, some, numbered)
    superset = mod.load_data(tmp_path, labels=("seg",))["sparse_superset"]
    assert list(superset) == ["svol003", "svol044"]
    np.testing.assert_array_equal(superset["svol003"]["msk"][0, 0], [1, 0, 1, 0, 1, 1])
    np.testing.assert_array_equal(superset["svol003"]["seg"][0, 0], [0, 1, 0, 3, 4, 5])
    with pytest.raises(InputError, match="svol001"):
        mod.load_data(tmp_path / "elsewhere", labels=("seg",))


def test_folds_are_masked_out_for_all_tasks_but_their_own(tmp_path):
    mod = module("minnie/pinky_basil_minnie")
    row = mod.data_info["minnie001"]
    fill(tmp_path, {"minnie001": row}, lambda id, file: numbered(id, "seg" if file == "fld.h5" else file))
    volume = mod.load_data(tmp_path, ["minnie001"], labels=("seg", "fld", "blv"))["minnie001"]
    np.testing.assert_array_equal(volume["msk"][0, 0], [1, 0, 0, 0, 0, 0])
    assert volume["fld_msk"].all()
    assert not volume["blv"].any()


def test_a_label_that_the_table_does_not_annotate_masks_its_task(tmp_path):
    mod = module("pinky/base")
    fill(tmp_path, mod.data_info, numbered)
    assert "mye" not in mod.load_data(tmp_path, labels=("seg", "mye"))["stitched_vol40-vol41"]


def test_a_volume_with_an_a_shares_the_folder_and_has_another_mask():
    table = rows("base", {"vol1": "seg msk=m.h5", "vol1a": "seg", "data": "seg"})
    assert [row["dir"] for row in table.values()] == ["base/vol1", "base/vol1", "base/data"]
    assert [row["msk"] for row in table.values()] == ["m.h5", "msk.h5", "msk.h5"]
    assert plus({"a": "seg", "b": "seg"}, "mye", but=("b",)) == {"a": "seg mye", "b": "seg"}


def test_classes_become_a_label_of_their_own():
    classes = np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(Made("f", keep=(2,)).array(lambda name: classes), [0, 0, 1, 0])
    np.testing.assert_array_equal(Made("f", keep=(1, 3)).array(lambda name: classes), [0, 1, 0, 1])
    np.testing.assert_array_equal(Made("f", inverted=True).array(lambda name: classes), [1, 0, 0, 0])
    np.testing.assert_array_equal(classes, [0, 1, 2, 3])
