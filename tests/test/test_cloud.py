"""Volumes behind cloud-volume, through real ``file://`` ones on asymmetric volumes, and each of its traps."""

import json

import numpy as np
import pytest

from deepem.io.cloud_sink import CloudSink, Layout
from deepem.io.precomputed import CloudSource
from deepem.io.pyramid import downsample
from deepem.test.forward import predict
from deepem.test.place import Place, filled
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

cloudvolume = pytest.importorskip("cloudvolume")

FOV = (4, 16, 16)
SIZE = (7, 37, 29)  # z, y, x
CORNER = (5, 20, 10)


def volume_at(path, mip=0):
    return cloudvolume.CloudVolume(path, mip=mip, progress=False)


def run(lab, path, *words, out="out"):
    lab.forward("--gs_input", path, "--gs_output", f"file://{lab.folder}/{out}", "--chunk_size", "16,8,4", *words)


def found_in(lab, name, out="out"):
    volume = volume_at(f"file://{lab.folder}/{out}/{name}")
    return np.asarray(volume[:]).transpose(3, 2, 1, 0), volume


@pytest.mark.parametrize(
    ("place", "begin", "size"),
    [
        (Place(begin=(12, 25, 6)), (6, 25, 12), (6, 32, 27)),
        (Place(begin=(12, 25, 6), end=(20, 40, 9)), (6, 25, 12), (3, 15, 8)),
        (Place(begin=(12, 25, 6), size=(20, 10, 5)), (6, 25, 12), (5, 10, 20)),
        (Place(center=(20, 40, 8), size=(9, 16, 5)), (6, 32, 16), (5, 16, 9)),
        (Place(size=(9, 16, 5)), (5, 20, 10), (5, 16, 9)),
    ],
)
def test_begin_end_centre_and_size_are_x_y_z(stored, place, begin, size):
    path, array = stored
    source = place.within(CloudSource(path))
    assert (source.origin, source.size) == (begin, size)
    inside = Box.of_size(begin, size).shift(-c for c in CORNER).slices()
    np.testing.assert_array_equal(source.read(Box((0, 0, 0), size))[0], array[inside])


@pytest.mark.parametrize("place", [Place(begin=(9, 20, 5)), Place(end=(40, 57, 12)), Place(center=(20, 40, 8))])
def test_a_box_that_is_not_in_the_volume_is_refused_not_filled_with_zeros(stored, place):
    with pytest.raises(InputError, match=r"--begin|--center"):
        place.within(CloudSource(stored[0]))


def test_a_prediction_lies_where_its_input_does(lab, stored):
    path, array = stored
    run(lab, path)
    for name, value in predict(lab.net, array, patch_size=FOV).items():
        found, volume = found_in(lab, name)
        np.testing.assert_array_equal(found, value)
        assert tuple(volume.voxel_offset) == (10, 20, 5)
        assert tuple(volume.resolution) == (4, 4, 40)
        assert tuple(volume.chunk_size) == (16, 8, 4)
        assert str(volume.dtype) == "float32"


def test_a_part_of_the_volume_with_a_crop_and_in_bytes(lab, stored):
    path, array = stored
    run(lab, path, "-b", "14,22,6", "-e", "38,55,12", "--force_crop", "2,10,12", "--out_dtype", "uint8", "--mit")
    found, volume = found_in(lab, "mitochondria")
    box = Box((6, 22, 14), (12, 55, 38)).shift(-c for c in CORNER)
    value = predict(lab.net, array[box.slices()], patch_size=FOV, output_size=(2, 10, 12))["mitochondria"]
    assert tuple(volume.voxel_offset) == (14 + 2, 22 + 3, 6 + 1)
    np.testing.assert_array_equal(found, np.rint(value * 255))


def test_columns_of_whole_chunks_give_the_same_bytes(lab, stored, monkeypatch, capsys):
    path, _ = stored
    run(lab, path, "--mit")
    whole, _ = found_in(lab, "mitochondria")
    monkeypatch.setattr("deepem.test.job.trial", lambda call, device: call() and 0)
    monkeypatch.setattr("deepem.test.job.available", lambda device: 60_000)
    run(lab, path, "--mit", "--json", out="cut")
    assert json.loads(capsys.readouterr().out)["volumes"][0]["columns"] > 1
    np.testing.assert_array_equal(found_in(lab, "mitochondria", "cut")[0], whole)


def test_names_keywords_tags_and_variances(lab, stored):
    path, _ = stored
    out = f"file://{lab.folder}/out/{{}}"
    words = ["--gs_output", out, "--mit", "--chunk_size", "16,8,4", "--overlap", "0,0,0"]
    named = ["--keywords", "em", "--tags", '{"mitochondria": "mito"}', "--test_aug", "0", "1", "--variance"]
    lab.forward("--gs_input", path.replace("/em", "/{}"), *words, *named)
    for name in ("mito", "mito_var"):
        assert volume_at(f"file://{lab.folder}/out/em/{name}").num_channels == 1
    lab.forward("--gs_input", path, *words, "-c", "24,38,8", "-s", "16,16,4")
    assert (lab.folder / "out/x24_y38_z8_s16-16-4/mitochondria/info").is_file()
    lab.forward("--gs_input", path, *words, "-b", "10,20,5", "-e", "26,36,9")
    assert (lab.folder / "out/10-26_20-36_5-9/mitochondria/info").is_file()


@pytest.mark.parametrize("words", [["--gs_output", "foo://x"], ["--gs_input", "foo://x", "--gs_output", "out"],
                                   ["--gs_output", "https://host/x"]])  # fmt: skip
def test_a_protocol_that_is_none_is_no_local_folder(lab, capsys, words):
    lab.image("a")
    before = sorted(lab.folder.iterdir())
    with pytest.raises(SystemExit) as stopped:
        lab.forward("--data_dir", "data", "--test_ids", "a", *words)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("forward.py: error")]
    assert f"got the protocol {words[1].split(':')[0]}://, wants one of " in line
    assert "gs://" in line
    assert "file://" in line
    assert sorted(lab.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("tags", "line"),
    [
        ({"affinity": "x", "mitochondria": "x"}, "the folder x for affinity and for mitochondria"),
        ({"affinity": "x", "mitochondria": "./x/"}, "the folder x for affinity and for mitochondria"),
        ({"affinity": "mitochondria"}, "the folder mitochondria for affinity and for mitochondria"),
        ({"affinity": "mitochondria_var"}, "the folder mitochondria_var for affinity and for mitochondria_var"),
        ({"affinity": ""}, "'' for affinity"),
        ({"mitochondria": "a/.."}, "'a/..' for mitochondria"),
        ({"mitochondria": "../a"}, "'../a' for mitochondria"),
        ({"mitochondria": "/a"}, "'/a' for mitochondria"),
    ],
)
def test_tags_that_give_outputs_no_folder_of_their_own_are_refused(lab, stored, capsys, tags, line):
    with pytest.raises(SystemExit) as stopped:
        run(lab, stored[0], "--tags", json.dumps(tags), "--test_aug", "0", "1", "--variance")
    assert stopped.value.code == 2
    assert f"--tags: got {line}" in capsys.readouterr().err
    assert not (lab.folder / "out").exists()


@pytest.mark.parametrize("words", [["out"], ["out/{}", "--keywords", "k"]])
def test_ids_that_give_the_same_volume_are_refused_before_the_first(lab, capsys, words):
    lab.image("a"), lab.image("b")
    with pytest.raises(SystemExit) as stopped:
        lab.forward("--data_dir", "data", "--test_ids", "a", "b", "--gs_output", f"file://{lab.folder}/{words[0]}",
                    *words[1:])  # fmt: skip
    assert stopped.value.code == 2
    assert "--test_ids: got a and b, both predicted into" in capsys.readouterr().err
    assert not (lab.folder / "out").exists()


def test_ids_go_into_folders_of_their_own(lab):
    images = {name: lab.image(name) for name in ("a", "bb")}
    lab.forward("--data_dir", "data", "--test_ids", "a", "bb", "--gs_output", f"file://{lab.folder}/out/{{}}", "--mit")
    for name, image in images.items():
        value = predict(lab.net, image, patch_size=FOV)["mitochondria"]
        np.testing.assert_array_equal(found_in(lab, f"{name}/mitochondria")[0], value)


def test_keywords_that_do_not_fill_a_path_are_refused():
    assert filled("a/{}/b{}", ["x", "y"]) == "a/x/by"
    with pytest.raises(InputError, match="--keywords"):
        filled("a/{}/{}", ["x"])


def test_provenance_says_how_it_was_made(lab, stored):
    run(lab, stored[0], "--mit")
    provenance = json.loads((lab.folder / "out/mitochondria/provenance").read_text())
    (note,) = provenance["processing"]
    assert note["checkpoint"] == 7
    assert note["input"] == stored[0]
    assert note["options"]["exp_name"] == "exp"


def test_the_info_file_says_which_edges_affinities_have(lab, stored, capsys):
    run(lab, stored[0])
    info = json.loads((lab.folder / "out/affinity/info").read_text())
    edges = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    about = info["attributes"]
    assert (about["axes"], about["edges"], about["tasks"], about["values"]) == ("czyx", edges, ["aff"], "probability")
    info["attributes"]["edges"] = edges[::-1]
    (lab.folder / "out/affinity/info").write_text(json.dumps(info))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(lab, stored[0])
    assert stopped.value.code == 2
    assert f"a volume there with the edges {edges[::-1]}, wants {edges}" in capsys.readouterr().err


def test_a_level_that_is_not_there_is_refused_by_the_name_of_its_flag(lab, stored, capsys):
    with pytest.raises(SystemExit):
        run(lab, stored[0], "--in_mip", "3")
    assert "--in_mip: got 3, wants 0 to 0, the levels of" in capsys.readouterr().err


def test_absent_chunks_of_the_input_are_told_in_one_line(lab, stored, capsys):
    for file in sorted((lab.folder / "em").glob("4*/*"))[:2]:
        file.unlink()
    run(lab, stored[0], "--mit")
    told = [line for line in capsys.readouterr().err.splitlines() if "are absent" in line]
    assert len(told) == 1
    assert told[0].startswith(f"warning: {stored[0]}: 2 chunks are absent and read as the fill value, such as 4_4_40/")


def test_a_lower_resolution_is_read_and_written_at_its_own(lab, stored):
    path, array = stored
    assert downsample(path, 1) == 2
    run(lab, path, "--in_mip", "1", "--mit", "--inputsz", "4,16,8", "-b", "10,20,5", "-s", "28,36,7")
    found, volume = found_in(lab, "mitochondria")
    assert tuple(volume.resolution) == (8, 8, 40)
    assert tuple(volume.voxel_offset) == (5, 10, 5)
    small = array[:, :36, :28].reshape(7, 18, 2, 14, 2).mean((2, 4))
    value = predict(lab.net, np.rint(small).astype(np.uint8), patch_size=(4, 16, 8))["mitochondria"]
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("offset", [0, 1, -3])
@pytest.mark.parametrize("given", [{}, {"end": True}, {"begin": True}, {"begin": True, "end": True}])
def test_the_whole_of_a_level_that_ends_before_the_finer_one_does(tmp_path, offset, given):
    path, size = f"file://{tmp_path}/v", (64, 81, 8)
    cloudvolume.CloudVolume.from_numpy(
        np.ones((*size, 1), np.uint8), path, resolution=(4, 4, 40), voxel_offset=(offset, 0, 0), chunk_size=(8, 8, 8),
        progress=False,
    )  # fmt: skip
    fine = volume_at(path)
    fine.add_scale((2, 2, 1))
    fine.commit_info()
    coarse = volume_at(path, 1)
    ends = {"begin": (offset, 0, 0), "end": (size[0] + offset, *size[1:])}
    source = Place(**{name: ends[name] for name in given}).within(CloudSource(path, 1))
    assert source.origin == tuple(coarse.bounds.minpt)[::-1]
    assert source.size == tuple(coarse.volume_size)[::-1]
    if offset:
        with pytest.raises(InputError, match="--end"):
            Place(end=(size[0] + offset + 1, *size[1:])).within(CloudSource(path, 1))


def test_offset_and_resolution_of_the_output_can_be_given(lab, stored):
    run(lab, stored[0], "--mit", "-o", "-100,200,300", "-r", "5,6,50", "--crop_border", "2,0,0")
    _, volume = found_in(lab, "mitochondria")
    assert tuple(volume.voxel_offset) == (-100, 200, 301)
    assert tuple(volume.resolution) == (5, 6, 50)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int8", "uint16", "uint32", "uint64", "float32"])
def test_a_mask_volume_of_any_type_blackens_the_image(lab, stored, dtype):
    path, array = stored
    mask = np.random.default_rng(1).random(SIZE) < 0.3
    values = (mask * (1 if dtype == "bool" else 77)).astype(dtype)
    info = cloudvolume.CloudVolume.create_new_info(
        1, "image", dtype, "raw", (4, 4, 40), (10, 20, 5), SIZE[::-1], chunk_size=(16, 8, 4)
    )
    volume = cloudvolume.CloudVolume(path + "_mask", info=info, progress=False, non_aligned_writes=True)
    volume.commit_info()
    volume[:] = values.transpose(2, 1, 0)[..., None].copy()
    run(lab, path, "--gs_input_mask", path + "_mask", "--mit")
    value = predict(lab.net, np.where(mask, 0, array).astype(np.uint8), patch_size=FOV)["mitochondria"]
    np.testing.assert_array_equal(found_in(lab, "mitochondria")[0], value)


def test_a_mask_without_a_cloud_input_is_refused_not_ignored(lab, stored, capsys):
    lab.image("a")
    with pytest.raises(SystemExit):
        lab.forward("--data_dir", "data", "--test_ids", "a", "--gs_input_mask", stored[0])
    assert "--gs_input_mask: got no --gs_input" in capsys.readouterr().err
    assert lab.files() == []


def test_an_output_that_is_off_the_chunks_of_the_volume_there_is_refused(lab, stored, capsys):
    path, _ = stored
    run(lab, path, "--mit")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(lab, path, "--mit", "-b", "12,20,5", "-s", "16,16,4")
    assert "chunks of" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--out_dtype", "uint8"], ["-r", "8,8,40"], ["-o", "500,500,500"]])
def test_an_output_volume_of_another_kind_is_refused(lab, stored, capsys, words):
    path, _ = stored
    run(lab, path, "--mit")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(lab, path, "--mit", *words)
    assert stopped.value.code == 2
    assert "a volume there of" in capsys.readouterr().err


def floats(lab, name, array, offset=(10, 20, 5)):
    path = f"file://{lab.folder}/{name}"
    values = array.astype(np.float32).transpose(2, 1, 0)[..., None].copy()
    cloudvolume.CloudVolume.from_numpy(
        values, path, resolution=(4, 4, 40), voxel_offset=offset, chunk_size=(16, 8, 4), progress=False
    )
    return path


@pytest.mark.parametrize("why", ["memory", "not a number", "another layout", "not writable"])
@pytest.mark.parametrize("parent", [False, True])
def test_a_refused_run_leaves_no_new_volumes_behind(lab, stored, capsys, monkeypatch, why, parent):
    path, array = stored
    words = []
    if parent:
        (lab.folder / "out").mkdir()
    if why == "memory":
        words = ["--max_memory", "1"]
    elif why == "not a number":
        array = array / 255
        array[3, 4, 5] = np.nan
        path = floats(lab, "nan", array)
    elif why == "another layout":
        run(lab, path, "--mit", "--out_dtype", "uint8")
    else:
        commit = cloudvolume.CloudVolume

        def made(where, info=None, **options):
            if info is not None and where.endswith("mitochondria"):
                raise PermissionError(where)
            return commit(where, info=info, **options)

        made.create_new_info = commit.create_new_info
        monkeypatch.setattr(cloudvolume, "CloudVolume", made)
    capsys.readouterr()
    before = sorted(lab.folder.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        run(lab, path, *words)
    assert stopped.value.code == 2, capsys.readouterr().err
    assert sorted(lab.folder.rglob("*")) == before


def test_a_refused_run_leaves_what_was_there_and_what_it_wrote(lab, stored):
    path, _ = stored
    run(lab, path, "--mit")
    before = {file: file.read_bytes() for file in (lab.folder / "out").rglob("*") if file.is_file()}
    with pytest.raises(SystemExit):
        run(lab, path, "--max_memory", "1")
    assert {file: file.read_bytes() for file in (lab.folder / "out").rglob("*") if file.is_file()} == before
    layout = Layout(Box((0, 0, 0), (4, 8, 16)), (40, 4, 4), (4, 8, 8))
    sink = CloudSink({"a": f"file://{lab.folder}/v"}, {"a": 1}, layout, (0, 0, 0))
    sink.write(Box((0, 0, 0), (4, 8, 8)), {"a": np.ones((1, 4, 8, 8), np.float32)}, True)
    sink.__exit__(InputError, None, None)
    assert (lab.folder / "v/info").is_file()


def test_the_outputs_of_all_ids_are_checked_before_the_first_is_begun(lab):
    lab.image("a"), lab.image("bb")
    words = ["--data_dir", "data", "--gs_output", f"file://{lab.folder}/out/{{}}", "--mit"]
    lab.forward(*words, "--test_ids", "bb", "--out_dtype", "uint8")
    with pytest.raises(SystemExit):
        lab.forward(*words, "--test_ids", "a", "bb")
    assert [folder.name for folder in (lab.folder / "out").iterdir()] == ["bb"]


def test_outputs_are_stored_uncompressed_for_readers_that_do_not_know_the_suffix_gz(lab, stored):
    run(lab, stored[0], "--mit")
    chunks = [p.name for p in (lab.folder / "out/mitochondria").rglob("*") if p.is_file() and "_" in p.name]
    assert chunks
    assert not [name for name in chunks if name.endswith(".gz")]


def test_parallel_starts_no_process_that_would_run_a_users_script_again(lab, stored, monkeypatch):
    """cloud-volume's own parallel reading spawns, and a script without a main guard runs again in each child."""
    import multiprocessing.process

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", lambda _: pytest.fail("a process was started"))
    run(lab, stored[0], "--mit", "--parallel", "16")
    run(lab, stored[0], "--mit", "-p", "1", out="one")
    np.testing.assert_array_equal(found_in(lab, "mitochondria")[0], found_in(lab, "mitochondria", "one")[0])
