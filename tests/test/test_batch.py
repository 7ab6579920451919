"""A batch of cut-outs from a JSON file."""

import json

import numpy as np
import pytest

from deepem.test.batch import on_devices, read
from deepem.utils.errors import InputError


def spec(lab, value):
    (lab.folder / "batch.json").write_text(json.dumps(value))
    return ["--spec", "batch.json", "--data_dir", "data"]


def test_a_cutout_is_flags_that_win_over_defaults_and_the_command_line(tmp_path):
    file = tmp_path / "batch.json"
    file.write_text(json.dumps({
        "defaults": {"in_mip": 1, "overlap": [0, 0.5, 4]},
        "cutouts": [{"center": [1, -2, 3], "size": [4, 5, 6], "tags": {"affinity": "a"}, "keywords": ["x", "y"]},
                    {"in_mip": 2, "downsample": True, "cache": False}],
    }))  # fmt: skip
    assert read(file, ["--amp"]) == [
        ["--amp", "--in_mip", "1", "--overlap", "0,0.5,4", "--center", "1,-2,3", "--size", "4,5,6",
         "--tags", '{"affinity": "a"}', "--keywords", "x", "y"],
        ["--amp", "--in_mip", "2", "--overlap", "0,0.5,4", "--downsample"],
    ]  # fmt: skip


def test_null_is_as_if_not_given(tmp_path):
    file = tmp_path / "batch.json"
    file.write_text('{"defaults": {"out_tag": "t"}, "cutouts": [{"out_tag": null}, {"end": null}]}')
    assert read(file, ["--amp"]) == [["--amp"], ["--amp", "--out_tag", "t"]]


def test_lists_are_words_as_the_flags_want_them(tmp_path):
    file = tmp_path / "batch.json"
    file.write_text(json.dumps([{
        "mirror": [0, 8, 8], "crop_border": [0, 4, 4], "crop_center": [1, 2, 3], "force_crop": [2, 8, 8],
        "fov": [4, 16, 16], "inputsz": [4, 16, 16], "outputsz": [4, 16, 16], "begin": [-1, 2, 3],
        "mask_edges": [[0, 0, 1], [0, -1, 0]], "edges": [[1, 0, 0]], "test_aug": [0, 3], "gs_input_norm": [0.1, 0.2],
        "dummy_inputsz": [4, 16, 16], "width": [4, 8], "test_ids": ["a", "b"], "batch_size": 2,
    }]))  # fmt: skip
    assert " ".join(read(file, [])[0]) == (
        "--mirror 0,8,8 --crop_border 0,4,4 --crop_center 1,2,3 --force_crop 2,8,8 --fov 4,16,16 --inputsz 4,16,16 "
        "--outputsz 4,16,16 --begin -1,2,3 --mask_edges 0,0,1 0,-1,0 --edges 1,0,0 --test_aug 0 3 "
        "--gs_input_norm 0.1 0.2 --dummy_inputsz 4 16 16 --width 4 8 --test_ids a b --batch_size 2"
    )


def test_a_cutout_may_have_several_volumes_and_vectors_as_lists(lab, capsys):
    lab.image("a"), lab.image("bb", (4, 20, 16))
    cutouts = [
        {"test_ids": ["a", "bb"], "mit": True, "crop_center": [2, 8, 7], "mirror": [2, 0, 4]},
        {"test_ids": ["a"], "aff": True, "out_tag": "t", "mask_edges": [[0, 0, -1], [0, 1, 0], [1, 0, 0]]},
    ]
    lab.forward(*spec(lab, cutouts), "--json")
    assert [v["name"] for v in json.loads(capsys.readouterr().out)["volumes"]] == ["a", "bb", "a"]
    assert lab.output("a_mitochondria_7").shape == lab.output("bb_mitochondria_7").shape == (1, 2, 8, 7)


@pytest.mark.parametrize(
    ("cutout", "says"),
    [
        ({"spec": "batch.json"}, "batch.json: cut-out 0: got the flag spec, wants flags of a single cut-out"),
        ({"test_ids": ["a"], "processes": 2}, "batch.json: cut-out 0: got the flag processes"),
        ({"mit": True}, "batch.json: cut-out 0: --test_ids: got nothing"),
    ],
)
def test_what_makes_no_cutout_is_one_line(lab, capsys, cutout, says):
    words = spec(lab, [cutout])
    (lab.folder / "words").write_text(" ".join(words))
    for line in (words, ["@words"]):
        with pytest.raises(SystemExit) as stopped:
            lab.forward(*line)
        assert stopped.value.code == 2
        assert says in capsys.readouterr().err.splitlines()[-1]


def test_each_cutout_is_predicted(lab, capsys):
    lab.image("a"), lab.image("bb", (4, 20, 16))
    lab.forward(*spec(lab, [{"test_ids": ["a"], "mit": True}, {"test_ids": ["bb"], "out_tag": "t"}]), "--json")
    assert lab.files() == ["a_mitochondria_7.h5", "bb_affinity_7_t.h5", "bb_mitochondria_7_t.h5"]
    assert [v["name"] for v in json.loads(capsys.readouterr().out)["volumes"]] == ["a", "bb"]


def test_cutouts_of_one_volume_need_files_of_their_own(lab, capsys):
    lab.image("a")
    left, right = {"test_ids": ["a"], "mit": True, "crop_center": [2, 8, 7]}, {"test_ids": ["a"], "mit": True}
    with pytest.raises(SystemExit) as stopped:
        lab.forward(*spec(lab, [left, {"test_ids": ["a"], "aff": True}, right]))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "forward.py: error: batch.json: cut-out 2: --test_ids: got experiments/exp/forward/a_mitochondria_7.h5, "
        "which cut-out 0 writes, wants an --out_prefix or --out_tag for each cut-out of a volume"
    )
    assert not lab.files()
    lab.forward(*spec(lab, [left, {**right, "out_tag": "whole"}]))
    assert lab.files() == ["a_mitochondria_7.h5", "a_mitochondria_7_whole.h5"]


@pytest.mark.slow
def test_processes_share_the_cutouts(lab):
    lab.image("a"), lab.image("bb", (4, 20, 16))
    words = spec(lab, [{"test_ids": ["a"], "mit": True}, {"test_ids": ["bb"], "mit": True}])
    lab.forward(*words)
    before = [lab.output("a_mitochondria_7"), lab.output("bb_mitochondria_7")]
    for file in lab.files():
        (lab.folder / "experiments/exp/forward" / file).unlink()
    lab.forward(*words, "--processes", "2")
    for one, name in zip(before, ("a", "bb"), strict=True):
        np.testing.assert_array_equal(lab.output(f"{name}_mitochondria_7"), one)


@pytest.mark.parametrize("value", [{}, [], {"cutouts": [1]}, "text", {"cutouts": []}])
def test_another_form_is_refused(tmp_path, value):
    (tmp_path / "batch.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="cutouts"):
        read(tmp_path / "batch.json", [])


def test_a_bad_cutout_is_named_before_any_is_begun(lab, capsys):
    lab.image("a")
    with pytest.raises(SystemExit):
        lab.forward(*spec(lab, [{"test_ids": ["a"]}, {"test_ids": ["a"], "blur": 3, "chkpt_num": 5}]))
    assert "cut-out 1" in capsys.readouterr().err
    assert not lab.files()


def test_cutouts_take_the_gpus_in_turn():
    lines = [["--mit"], ["--aff"], ["--syn"]]
    assert on_devices(lines, 2) == [["--mit", "--gpu_id", "0"], ["--aff", "--gpu_id", "1"], ["--syn", "--gpu_id", "0"]]
    assert on_devices(lines, 1) == on_devices(lines, 0) == lines


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_cutout_that_fails_is_named_and_the_others_are_predicted(lab, capsys, processes):
    lab.image("a"), lab.image("tiny", (2, 8, 8))
    words = spec(
        lab, [{"test_ids": ["tiny"]}, {"test_ids": ["a"]}, {"test_ids": ["tiny"], "out_tag": "p", "pad_small": True}]
    )
    with pytest.raises(SystemExit) as stopped:
        lab.forward(*words, "--mit", "--processes", processes)
    assert stopped.value.code == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(
            "forward.py: error: batch.json: cut-out 0: data/tiny/img.h5:main: got a volume of (2, 8, 8), wants at least"
        )
    )
    assert lab.files() == ["a_mitochondria_7.h5", "tiny_mitochondria_7_p.h5"]
