"""The forward command line on files: what it writes, what decides, and what it refuses."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from deepem.data import emio
from deepem.test import job
from deepem.test.forward import predict

FOV = (4, 16, 16)


def wanted(lab, image, **options):
    return predict(lab.net, image, patch_size=FOV, **options)


def test_files_hold_what_predict_gives_and_say_what_they_are(lab):
    image = lab.image("t/1", voxel_size_nm=(40.0, 4.0, 4.0))
    lab.forward("--data_dir", "data", "--test_ids", "t/1")
    assert lab.files() == ["t_1_affinity_7.h5", "t_1_mitochondria_7.h5"]
    for name, value in wanted(lab, image).items():
        np.testing.assert_array_equal(lab.output(f"t_1_{name}_7"), value)
    with h5py.File("experiments/exp/forward/t_1_affinity_7.h5") as file:
        held = dict(file["main"].attrs)
    assert held["axes"] == "czyx"
    assert held["offset"].tolist() == [0, 0, 0]
    assert held["voxel_size_nm"].tolist() == [40, 4, 4]
    assert held["edges"].tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert list(held["tasks"]) == ["aff"]


@pytest.mark.parametrize(
    ("words", "attributes", "told"),
    [
        (["-r", "3.58,3.58,40"], {}, [40, 3.58, 3.58]),
        (["-r", "3.58,3.58,40"], {"voxel_size_nm": (30.0, 4.0, 4.0)}, [40, 3.58, 3.58]),
        ([], {"resolution": (30.0, 4.5, 4.5)}, [30, 4.5, 4.5]),
        ([], {"voxel_size_nm": "unknown"}, None),
        ([], {}, None),
    ],
)
def test_the_voxel_size_of_an_output_is_the_flags_else_the_inputs_else_unknown(lab, words, attributes, told):
    lab.image("a", **attributes)
    lab.forward("--data_dir", "data", "--test_ids", "a", "--mit", *words)
    with h5py.File("experiments/exp/forward/a_mitochondria_7.h5") as file:
        held = file["main"].attrs.get("voxel_size_nm")
    assert (held if held is None else held.tolist()) == told


def test_several_volumes_prefix_tag_and_public_names(lab):
    lab.image("a"), lab.image("bb", (4, 16, 16))
    lab.forward("--data_dir", "data", "--data_names", "a", "bb", "--out_prefix", "p", "--out_tag", "t", "--mit")
    assert lab.files() == ["p_a_mitochondria_7_t.h5", "p_bb_mitochondria_7_t.h5"]


def test_an_output_folder_that_is_a_file_is_named_in_one_line(lab, capsys):
    lab.image("a")
    (lab.folder / "experiments/exp/forward").write_text("")
    with pytest.raises(SystemExit) as stopped:
        lab.forward("--data_dir", "data", "--test_ids", "a")
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("forward.py: error: experiments/exp/forward/a_affinity_7.h5: got a place that cannot be")


def test_ids_that_give_the_same_file_are_refused_before_the_first(lab, capsys):
    lab.image("a/b"), lab.image("a_b")
    with pytest.raises(SystemExit) as stopped:
        lab.forward("--data_dir", "data", "--test_ids", "a/b", "a_b")
    assert stopped.value.code == 2
    assert "--test_ids: got a/b and a_b, both predicted into" in capsys.readouterr().err
    assert lab.files() == []


def test_the_newest_checkpoint_unless_one_is_asked_for(lab):
    lab.image("a")
    lab.forward("--data_dir", "data", "--test_ids", "a", "--chkpt_num", "7")
    before = lab.output("a_affinity_7")
    with torch.no_grad():
        getattr(lab.net.out, "affinity").conv.bias += 1  # noqa: B009
    lab.save(12, {"options": json.loads(json.dumps({"aff": 1.0, "mit": 0.5, "model": "rsunet", "width": [4, 8],
                                                    "fov": list(FOV)}))})  # fmt: skip
    lab.forward("--data_dir", "data", "--test_ids", "a")
    assert (lab.output("a_affinity_12") > before).all()


def test_a_public_checkpoint_needs_the_model_its_sizes_and_the_tasks(lab, capsys):
    image = lab.image("a")
    lab.save(9, {})
    with pytest.raises(SystemExit):
        lab.forward("--data_dir", "data", "--test_ids", "a", "--chkpt_num", "9")
    assert "--model" in capsys.readouterr().err
    flags = ["--model", "rsunet", "--fov", "4,16,16", "--width", "4", "8", "--aff", "--mit"]
    lab.forward("--data_dir", "data", "--test_ids", "a", "--chkpt_num", "9", *flags)
    np.testing.assert_array_equal(lab.output("a_affinity_9"), wanted(lab, image)["affinity"])


def test_the_edges_of_the_checkpoint_hold_unless_others_are_given(lab, capsys):
    edges = [[0, 0, 2], [0, -3, 0], [1, 0, 0]]
    weights = {key.replace("affinity", "long_range"): value for key, value in lab.net.state_dict().items()}
    stored = {"model": "rsunet", "fov": list(FOV), "width": [4, 8], "long": 1.0, "mit": 0.5, "edges": edges}
    lab.save(9, {"state_dict": weights, "options": stored})
    run = ["--data_dir", "data", "--test_ids", "a", "--long"]
    lab.image("a")
    lab.forward(*run, "3")
    with h5py.File("experiments/exp/forward/a_long_range_9.h5") as file:
        assert file["main"].attrs["edges"].tolist() == edges
    lab.forward(*run, "3", "--edges", "0,0,1", "0,-1,0", "2,0,0")
    with h5py.File("experiments/exp/forward/a_long_range_9.h5") as file:
        assert file["main"].attrs["edges"].tolist() == [[0, 0, 1], [0, -1, 0], [2, 0, 0]]
    with pytest.raises(SystemExit):
        lab.forward(*run, "2")
    assert "--long: got 2, wants 3, the number of --edges" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--overlap", "1,4,4"], {"overlap": (1, 4, 4)}),
        (["--stride", "2,0.75,9"], {"stride": (2, 0.75, 9)}),
        (["--blend", "mean"], {"blend": "mean"}),
        (["--blend", "", "--overlap", "0,0,0"], {"blend": "none", "overlap": (0, 0, 0)}),
        (["--bump", "wu"], {"bump": "wu"}),
        (["--mask_edges"], {"mask_edges": True}),
        (["--mask_edges", "0,0,-1", "0,1,0", "1,0,0"], {"mask_edges": [(0, 0, -1), (0, 1, 0), (1, 0, 0)]}),
        (["--temperature", "3"], {"temperature": 3.0}),
        (["--batch_size", "3"], {"batch_size": 3}),
        (["--test_aug", "0", "3", "14", "--variance"], {"test_aug": [0, 3, 14], "variance": True}),
        (["--inputsz", "4,16,32"], {"patch_size": (4, 16, 32)}),
        (["--max_memory", "100000"], {}),
    ],
)  # fmt: skip
def test_flags_mean_what_the_arguments_of_predict_mean(lab, flags, options):
    image = lab.image("a", (6, 26, 33))
    lab.forward("--data_dir", "data", "--test_ids", "a", *flags)
    for name, value in predict(lab.net, image, **{"patch_size": FOV, **options}).items():
        np.testing.assert_allclose(lab.output(f"a_{name}_7"), value, atol=1e-6)


def offset(name):
    with h5py.File(f"experiments/exp/forward/{name}.h5") as file:
        return file["main"].attrs["offset"].tolist(), file["main"].shape


def test_a_cutout_is_predicted_where_it_lies(lab):
    image = lab.image("a", (7, 37, 29), offset=(100, -20, 3))
    lab.forward("--data_dir", "data", "--test_ids", "a", "--mit", "--crop_border", "2,0,6")
    assert offset("a_mitochondria_7") == ([101, -20, 6], (1, 5, 37, 23))
    np.testing.assert_array_equal(lab.output("a_mitochondria_7"), wanted(lab, image)["mitochondria"][:, 1:-1, :, 3:-3])


def test_crops_and_paddings_say_where_they_lie(lab):
    image = lab.image("a", (7, 37, 29))
    whole = wanted(lab, image)["mitochondria"]
    run = ["--data_dir", "data", "--test_ids", "a", "--mit"]
    lab.forward(*run, "--crop_border", "2,0,5")
    assert offset("a_mitochondria_7") == ([1, 0, 2], (1, 5, 37, 25))
    np.testing.assert_array_equal(lab.output("a_mitochondria_7"), whole[:, 1:-1, :, 2:-2])
    lab.forward(*run, "--crop_center", "3,20,20")
    assert offset("a_mitochondria_7") == ([2, 8, 4], (1, 3, 20, 20))
    np.testing.assert_array_equal(lab.output("a_mitochondria_7"), whole[:, 2:5, 8:28, 4:24])
    lab.forward(*run, "--mirror", "2,6,4")
    assert offset("a_mitochondria_7") == ([-1, -3, -2], (1, 9, 43, 33))
    padded = np.pad(image, ((1, 1), (3, 3), (2, 2)), mode="reflect")
    np.testing.assert_array_equal(lab.output("a_mitochondria_7"), wanted(lab, padded)["mitochondria"])
    lab.forward(*run, "--mirror", "0,6,4", "--crop_border", "0,6,4")
    assert offset("a_mitochondria_7") == ([0, 0, 0], (1, 7, 37, 29))
    lab.forward(*run, "--force_crop", "2,10,11")
    assert offset("a_mitochondria_7") == ([1, 3, 3], (1, 5, 31, 24))


def test_a_small_volume_is_mirrored_if_asked(lab, capsys):
    image = lab.image("small", (1, 5, 40))
    with pytest.raises(SystemExit) as stopped:
        lab.forward("--data_dir", "data", "--test_ids", "small")
    assert stopped.value.code == 2
    assert "--pad_small" in capsys.readouterr().err
    lab.forward("--data_dir", "data", "--test_ids", "small", "--pad_small", "--mit")
    padded = np.pad(image, ((1, 2), (5, 6), (0, 0)), mode="reflect")
    assert offset("small_mitochondria_7") == ([0, 0, 0], (1, 1, 5, 40))  # its own extent, and no more
    expected = wanted(lab, padded)["mitochondria"][:, 1:2, 5:10]
    np.testing.assert_array_equal(lab.output("small_mitochondria_7"), expected)


def test_bytes_out_are_probability_times_255(lab):
    image = lab.image("a")
    lab.forward("--data_dir", "data", "--test_ids", "a", "--out_dtype", "uint8")
    found = lab.output("a_affinity_7")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(wanted(lab, image)["affinity"] * 255))


@pytest.mark.parametrize("suffix", [".tif", ".zarr", ".npy", ".h5"])
def test_every_format_is_read_alike(lab, suffix):
    image = lab.image("a")
    emio.imsave(image, f"data/a/em{suffix}")
    lab.forward(
        "--data_dir", "data", "--test_ids", "a", "--input_name", f"em{suffix}", "--mit", "--max_memory", "100000"
    )
    np.testing.assert_array_equal(lab.output("a_mitochondria_7"), wanted(lab, image)["mitochondria"])


def test_a_dataset_inside_a_file_is_named_after_a_colon(lab):
    image = lab.image("a")
    emio.imsave(image, "data/a/em.h5:volumes/raw")
    lab.forward("--data_dir", "data", "--test_ids", "a", "--input_name", "em.h5:volumes/raw", "--mit")
    np.testing.assert_array_equal(lab.output("a_mitochondria_7"), wanted(lab, image)["mitochondria"])


def test_background_is_skipped(lab):
    image = lab.image("a", (4, 16, 48))
    image[..., 16:] = 0
    emio.imsave(image, "data/a/img.h5")
    lab.forward("--data_dir", "data", "--test_ids", "a", "--mit", "--skip_background", "--overlap", "0,0,0")
    found = lab.output("a_mitochondria_7")
    assert (found[..., 16:] == 0).all()
    assert (found[..., :16] > 0).all()


def test_contrast_is_stretched_per_section(lab):
    image = lab.image("a")
    lab.forward("--data_dir", "data", "--test_ids", "a", "--mit", "--gs_input_norm", "0.1", "0.05")
    stretched = image.copy()
    for plane in stretched:
        grey = np.sort(plane[plane > 0])
        low, high = (grey[int(len(grey) * share)] for share in (0.1, 0.95))
        plane[:] = np.rint(np.clip((plane.astype(float) - low) * 255 / (high - low), 0, 255))
    found = lab.output("a_mitochondria_7")
    assert np.abs(found - wanted(lab, stretched)["mitochondria"]).max() < 0.02


def test_a_dummy_run_measures_and_writes_nothing(lab, capsys):
    lab.forward("--dummy", "--dummy_inputsz", "6", "40", "24", "--json")
    summary = json.loads(capsys.readouterr().out)
    (volume,) = summary["volumes"]
    assert volume["voxels"] == 6 * 40 * 24
    assert volume["voxels_per_s"] > 0
    assert not lab.files()


def test_json_at_the_end_names_the_outputs(lab, capsys):
    lab.image("a")
    lab.forward("--data_dir", "data", "--test_ids", "a", "--json")
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["checkpoint"] == 7
    assert summary["volumes"][0]["outputs"]["affinity"] == "experiments/exp/forward/a_affinity_7.h5"
    assert "voxels/s" in err
    assert "memory" in err


def test_a_memory_limit_cuts_columns_and_changes_no_bit(lab, capsys, monkeypatch):
    monkeypatch.setattr("deepem.test.job.trial", lambda call, device: call() and 0)
    lab.image("a", (7, 40, 90))
    lab.forward("--data_dir", "data", "--test_ids", "a")
    whole = lab.output("a_affinity_7")
    capsys.readouterr()
    monkeypatch.setattr("deepem.test.job.available", lambda device: 400_000)
    lab.forward("--data_dir", "data", "--test_ids", "a", "--json")
    out, err = capsys.readouterr()
    volume = json.loads(out)["volumes"][0]
    assert volume["columns"] >= 2
    assert volume["memory_estimate"] <= 400_000
    assert "more than uncut" in err
    np.testing.assert_array_equal(lab.output("a_affinity_7"), whole)
    flips = ["--test_aug", "0", "13", "--variance"]
    lab.forward("--data_dir", "data", "--test_ids", "a", "--max_memory", "1000", *flips)
    whole = lab.output("a_affinity_7"), lab.output("a_affinity_var_7")
    lab.forward("--data_dir", "data", "--test_ids", "a", *flips)
    np.testing.assert_array_equal(lab.output("a_affinity_7"), whole[0])
    np.testing.assert_array_equal(lab.output("a_affinity_var_7"), whole[1])


def refused(lab, capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        lab.forward(*words)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert not out
    assert not lab.files(), "something was written"
    assert err.splitlines()[-1].startswith("forward.py: error: ")
    return err.splitlines()[-1]


def test_too_little_memory_says_what_would_fit(lab, capsys, monkeypatch):
    lab.image("a")
    monkeypatch.setattr("deepem.test.job.trial", lambda call, device: 100 << 20)
    line = refused(lab, capsys, "--data_dir", "data", "--test_ids", "a", "--max_memory", "50", "--batch_size", "4")
    assert "--batch_size 1" in line

    def short(call, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("deepem.test.job.trial", short)
    assert "--batch_size" in refused(lab, capsys, "--data_dir", "data", "--test_ids", "a", "--batch_size", "4")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--test_ids", "none"], "data/none/img.h5"),
        (["--test_ids", "a", "none"], "data/none/img.h5"),
        ([], "--test_ids"),
        (["--test_ids", "a", "--chkpt_num", "8"], "checkpoints there: 7"),
        (["--test_ids", "a", "--width", "4", "12"], "another shape"),
        (["--test_ids", "a", "--inputsz", "4,15,16"], "y = 14 or 16"),
        (["--test_ids", "a", "--outputsz", "5,16,16"], "--outputsz"),
        (["--test_ids", "a", "--overlap", "4,0,0"], "--overlap"),
        (["--test_ids", "a", "--overlap", "nan,0,0"], "--overlap: got nan,0,0, wants three numbers"),
        (["--test_ids", "a", "--overlap", "inf,0,0"], "--overlap: got inf,0,0, wants three numbers"),
        (["--test_ids", "a", "--overlap", "-0.5,-0.5,-0.5"], "--overlap: got -0.5,-0.5,-0.5, wants 0 or more"),
        (["--test_ids", "a", "--stride", "nan,1,1"], "--stride: got nan,1,1, wants three numbers"),
        (["--test_ids", "a", "--stride", "0,1,1"], "--stride"),
        (["--test_ids", "a", "--resolution", "nan,1,1"], "--resolution: got nan,1,1, wants three numbers x,y,z above"),
        (["--test_ids", "a", "--resolution", "0,0,0"], "--resolution: got 0,0,0, wants three numbers x,y,z above"),
        (["--test_ids", "a", "--resolution", "4,-4,40"], "--resolution: got 4,-4,40, wants three numbers x,y,z above"),
        (["--test_ids", "a", "--test_aug", "16"], "0 to 15"),
        (["--test_ids", "a", "--variance"], "--test_aug"),
        (["--test_ids", "a", "--blend", "gauss"], "gauss"),
        (["--test_ids", "a", "--crop_center", "9,9,99"], "--crop_center"),
        (["--test_ids", "a", "--mask_edges", "0,0,1"], "one per channel"),
        (["--test_ids", "a", "--psd"], "out.synapse"),
        (["--test_ids", "a", "--no_such"], "--no_such"),
        (["--test_ids", "broken"], "broken/img.h5"),
        (["--test_ids", "labels"], "int32"),
        (["--test_ids", "nan"], "no numbers"),
        (["--test_ids", "empty"], "no dataset 'main'"),
        (["--test_ids", "two"], "2 channels"),
        (["--test_ids", "a", "--tags", "no json"], "--tags"),
        (["--gs_input", "file:///nowhere/at/all"], "file:///nowhere/at/all"),
        (["--spec", "nothing.json"], "nothing.json"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(lab, capsys, words, says):
    lab.image("a"), lab.image("broken"), lab.image("two", (2, 6, 20, 20))
    with open("data/broken/img.h5", "r+b") as file:
        file.truncate(1000)
    emio.imsave(np.zeros((6, 20, 20), np.int32), "data/labels/img.h5")
    emio.imsave(np.full((6, 20, 20), np.nan, np.float32), "data/nan/img.h5")
    emio.imsave(np.zeros((6, 20, 20), np.uint8), "data/empty/img.h5:raw")
    assert says in refused(lab, capsys, "--data_dir", "data", *words)


def test_no_experiment_is_named(lab, capsys):
    with pytest.raises(SystemExit):
        lab.forward("--data_dir", "data", "--test_ids", "a", "--exp_name", "other")
    assert "--exp_name other" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["file", pytest.param("module", marks=pytest.mark.slow)])
def test_it_runs_as_a_file_and_as_a_module_from_elsewhere(lab, root, how):
    lab.image("a", (4, 16, 16))
    command = [str(root / "deepem/test/forward.py")] if how == "file" else ["-m", "deepem.test.forward"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if how == "module":
        environment["PYTHONPATH"] = str(root)
    words = ["--exp_name", "exp", "--cpu", "--data_dir", "data", "--test_ids", "a"]
    subprocess.run([sys.executable, *command, *words], check=True, env=environment, capture_output=True)
    assert "a_affinity_7.h5" in lab.files()


def test_help_imports_nothing_heavy(root):
    code = f"import sys; sys.argv = ['forward.py', '--help']; sys.path.insert(0, {str(root)!r})\n" \
           "from deepem.test import forward\ntry: forward.main()\nexcept SystemExit: pass\n" \
           "assert not {'torch', 'h5py', 'cloudvolume'} & set(sys.modules), sys.modules"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--gs_input" in done.stdout


@pytest.mark.slow
def test_a_file_that_may_not_grow_leaves_no_output_and_is_named(lab, root):
    lab.image("a", (40, 64, 64))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"sys.path.insert(0, {str(root)!r})\nfrom deepem.test.forward import main\n"
        "main(['--exp_name', 'exp', '--cpu', '--data_dir', 'data', '--test_ids', 'a'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "a place that cannot be written to" in done.stderr.splitlines()[-1]
    assert lab.files() == []


@pytest.mark.parametrize("fast", [True, False])
def test_half_precision_that_is_no_faster_is_told(lab, capsys, monkeypatch, fast):
    monkeypatch.setattr(job, "has_fast_bf16", lambda device: fast)
    lab.image("a")
    lab.forward("--data_dir", "data", "--test_ids", "a", "--amp")
    assert ("warning: --amp: this processor is no faster" in capsys.readouterr().err) is not fast
