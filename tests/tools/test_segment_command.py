"""The command `deepem segment`, from files to files: what a lab relies on when it segments its volumes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from segment.volumes import LONG, XYZ, cells, noisy, oracle, pieces, same_partition

from deepem.io.files import imread, opened
from deepem.segment import segment as in_memory
from deepem.tools import segment, segment_tasks

NO = {"axes": "czyx", "offset": [0, 0, 0], "voxel_size_nm": [40.0, 4.0, 4.0], "values": "probability"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, array, **attributes):
    """A file as `deepem forward` writes it, but for what is None."""
    with h5py.File(name, "w") as top:
        known = {key: value for key, value in (NO | attributes).items() if value is not None}
        top.create_dataset("main", data=array).attrs.update(known)
    return name


def affinities(name="aff.h5", seed=0):
    values = noisy(cells((12, 30, 34)), seed=seed)
    write(name, values, edges=XYZ, offset=[3, 2, 1])
    return values


def run(*words):
    """The segments, once the command has ended well."""
    assert segment.main([*map(str, words)]) == 0
    return imread(words[words.index("--out") + 1])


def refused(capsys, *words):
    """The one line that a command which cannot be done ends with."""
    with pytest.raises(SystemExit) as end:
        segment.main([*map(str, words)])
    assert end.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("deepem segment: error: ")
    return line.removeprefix("deepem segment: error: ")


def of_row(*values):
    """Affinities of voxels in a row along x, of each to the one before it."""
    found = np.zeros((3, 1, 1, len(values)), np.float32)
    found[0, 0, 0] = values
    return write("row.h5", found, edges=XYZ)


class TestWhatIsWritten:
    @pytest.mark.parametrize("out", ["seg.h5", "seg.h5:volumes/ids", "seg.zarr", "file://seg"])
    @pytest.mark.parametrize("block", ["64,256,256", "5,7,9", "3,64,20"])
    def test_every_cut_and_format_holds_the_segments_of_the_whole(self, out, block):
        if out == "seg.zarr":
            pytest.importorskip("zarr")
        values, out = affinities(), out.replace("file://", f"file://{os.getcwd()}/")
        found = run("aff.h5", "--out", out, "--block", block, "--min_size", 9)
        np.testing.assert_array_equal(found, in_memory(values, min_size=9))
        with opened(out) as stored:
            assert stored.data.dtype == np.uint64
            assert stored.info.offset == (3, 2, 1)
            assert stored.voxel_size_nm == (40, 4, 4)
            assert stored.attributes["axes"] == "zyx"
            assert "aff.h5" in stored.attributes["source"]
            if not out.startswith("file://"):  # precomputed volumes have a file of their own for it
                assert json.loads(stored.attributes["provenance"])["host"] == socket.gethostname()
        if out.startswith("file://"):
            (made,) = json.loads(Path(out.removeprefix("file://"), "provenance").read_text())["processing"]
            assert made["host"] == socket.gethostname()
        assert [p.name for p in Path().glob(".*")] == []

    def test_a_precomputed_volume_is_a_segmentation_with_levels(self):
        from deepem.io.precomputed import open_volume

        write("aff.h5", oracle(np.ones((8, 150, 200), int)), edges=XYZ)
        run("aff.h5", "--out", f"file://{os.getcwd()}/seg")
        volume = open_volume(f"file://{os.getcwd()}/seg")
        assert (volume.layer_type, volume.encoding, str(volume.dtype)) == (
            "segmentation", "compressed_segmentation", "uint64",
        )  # fmt: skip
        assert [scale["resolution"] for scale in volume.info["scales"]] == [[4, 4, 40], [8, 8, 40], [16, 16, 40]]
        coarse = open_volume(f"file://{os.getcwd()}/seg", 2)[:, :, :]
        assert np.unique(coarse).tolist() == [1]

    def test_several_thresholds_are_several_files_from_one_pass(self, monkeypatch):
        values, labelled = affinities(), []
        label = segment_tasks.label_block
        monkeypatch.setattr(segment_tasks, "label_block", lambda *a: labelled.append(a[1]) or label(*a))
        assert segment.main(["aff.h5", "--out", "s.h5", "--threshold", "0.3", "0.6", "--threads", "1"]) == 0
        for threshold in (0.3, 0.6):
            np.testing.assert_array_equal(imread(f"s_{threshold}.h5"), in_memory(values, threshold=threshold))
        assert len(labelled) == 1

    def test_other_thresholds_need_no_new_watershed(self, monkeypatch, capsys):
        values = affinities()
        run("aff.h5", "--out", "a.h5", "--threshold", 0.6, "--work", "kept", "--block", "5,7,9")
        monkeypatch.setattr(segment_tasks, "label_block", lambda *_: pytest.fail("labelled again"))
        monkeypatch.setattr(segment_tasks, "join", lambda *_: pytest.fail("joined again"))
        for threshold in (0.8, 0.2):
            again = ("--out", "b.h5", "--work", "kept", "--again", "--block", "5,7,9", "--min_size", 5)
            found = run("aff.h5", *again, "--threshold", threshold)
            np.testing.assert_array_equal(found, in_memory(values, threshold=threshold, min_size=5))
        words = ("aff.h5", "--out", "b.h5", "--work", "kept", "--block", "5,7,9")
        assert refused(capsys, *words, "--threshold", 0.4).startswith(
            "--threshold: got [0.4], not [0.2], wants --again"
        )
        assert refused(capsys, *words, "--again", "--holes").startswith("--holes: got True, not False, wants the same")

    def test_again_without_a_run_before(self, capsys):
        affinities()
        assert refused(capsys, "aff.h5", "--out", "b.h5", "--again").startswith("--again: got nothing in .b.h5.parts")

    def test_fragments_and_their_graph_for_proofreading(self):
        values = affinities()
        run("aff.h5", "--out", "seg.h5", "--proofread", "proof", "--block", "5,7,9")
        np.testing.assert_array_equal(imread(f"file://{os.getcwd()}/proof/fragments"), in_memory(values, threshold=1))
        rows = np.load("proof/edges.npy")
        assert rows.dtype.names == ("u", "v", "affinity", "contact")
        assert set(np.unique(imread(f"file://{os.getcwd()}/proof/fragments"))) >= {*rows["u"], *rows["v"]}
        assert 0 <= rows["affinity"].min() < rows["affinity"].max() <= 1

    def test_memory_and_blocks_are_told_before_the_start(self, capsys):
        affinities()
        run("aff.h5", "--out", "seg.h5", "--block", "6,30,34", "--threads", 2)
        first = capsys.readouterr().err.splitlines()[0]
        assert first.startswith("segment: 0.0 Mvoxels in 2 blocks of 6x30x34; memory: ")


class TestChannels:
    def test_files_are_joined_by_their_edges(self):
        truth = cells((12, 30, 34))
        values = noisy(truth, LONG)
        write("aff.h5", values[:3], edges=XYZ), write("long.h5", values[3:], edges=LONG[3:])
        found = run("long.h5", "aff.h5", "--decoder", "mutex", "--out", "seg.h5", "--block", "5,9,9")
        order = [3, 4, 5, 6, 0, 1, 2]
        edges = [LONG[i] for i in order]
        np.testing.assert_array_equal(found, in_memory(values[order], edges=edges, decoder="mutex"))

    def test_of_channels_for_the_same_pairs_the_first_counts(self, capsys):
        values = affinities()
        write("more.h5", np.zeros((2, *values.shape[1:]), np.float32), edges=[(0, 0, -1), (0, 0, 9)], offset=[3, 2, 1])
        np.testing.assert_array_equal(run("aff.h5", "more.h5", "--out", "seg.h5"), in_memory(values))
        assert "more.h5:main, channel 0, edge (0, 0, -1): left out, aff.h5:main, channel 0" in capsys.readouterr().err

    @pytest.mark.parametrize(("direction", "sign"), [("backward", 1), ("forward", -1)])
    def test_affinities_made_elsewhere(self, direction, sign):
        truth = cells((12, 30, 34))
        stored = oracle(truth, [tuple(sign * d for d in edge) for edge in XYZ[::-1]])
        write("other.h5", stored, edges=None, axes=None, offset=None)
        words = ("--edges", "1,0,0", "0,1,0", "0,0,1", "--edge_direction", direction)
        found = run("other.h5", *words, "--decoder", "components", "--out", "seg.h5")
        inside = pieces(truth)
        inside[np.isin(inside, np.flatnonzero(np.bincount(inside.ravel()) == 1))] = 0
        assert same_partition(found, inside)

    def test_bytes_are_taken_with_one_warning(self, capsys):
        write("aff.h5", np.rint(noisy(cells((12, 30, 34))) * 255).astype(np.uint8), edges=XYZ)
        run("aff.h5", "--out", "seg.h5", "--block", "5,7,9")
        assert capsys.readouterr().err.count("256 levels leave plateaus") == 1

    def test_a_channel_of_several(self):
        values = np.zeros((2, 3, 4, 9), np.float32)
        values[1, :, :, 5:] = 1
        write("blv.h5", values, edges=None)
        found = run("blv.h5", "--decoder", "objects", "--channel", 1, "--out", "seg.h5")
        np.testing.assert_array_equal(found > 0, values[1] > 0)


class TestMasks:
    @pytest.mark.parametrize("place", ["alone", "in the image"])
    def test_nothing_runs_through_what_is_excluded(self, place):
        whole = write("row.h5", np.ones((3, 2, 3, 9), np.float32), edges=XYZ, offset=[1, 1, 1])
        vessel = np.zeros((2, 3, 9), np.float32)
        vessel[..., 4] = 0.9
        mask = np.ones((2, 3, 9), np.uint8)
        mask[..., 0] = 0
        if place == "in the image":
            vessel, mask = (np.pad(x, 1) for x in (vessel, mask))
        about = {"offset": None, "axes": None, "edges": None, "voxel_size_nm": None, "values": None}
        write("vessel.h5", vessel, **about), write("mask.h5", mask, **about)
        found = run(whole, "--mask", "mask.h5", "--exclude", "vessel.h5", "--out", "seg.h5", "--block", "2,2,2")
        np.testing.assert_array_equal(found[0, 0] > 0, [0, 1, 1, 1, 0, 1, 1, 1, 1])
        assert len(np.unique(found)) == 3

    def test_a_mask_elsewhere_is_refused(self, capsys):
        affinities()
        write("mask.h5", np.ones((12, 30, 34), np.uint8), offset=[9, 9, 9])
        line = refused(capsys, "aff.h5", "--mask", "mask.h5", "--out", "seg.h5")
        assert line.startswith("mask.h5:main: got (12, 30, 34) voxels from (9, 9, 9), wants a volume around")


class TestFaultsOfOtherPrograms:
    """Rows of the table of faults that comparable programs had, from file to file."""

    def test_affinities_are_read_at_their_voxel_in_any_block(self):
        labels = np.ones((2, 3, 8), int)
        labels[..., 4:] = 2
        write("aff.h5", oracle(labels), edges=XYZ)
        for block in ("64,64,64", "4,4,4"):
            _, sizes = np.unique(run("aff.h5", "--out", "seg.h5", "--block", block), return_counts=True)
            assert sizes.tolist() == [24, 24]

    @pytest.mark.parametrize("width", [1, 2, 4, 8])
    def test_a_weak_affinity_over_a_block_face_does_not_join(self, width):
        found = run(of_row(0, 1, 1, 1, 0.1, 1, 1, 1), "--out", "seg.h5", "--block", f"1,1,{width}")
        assert found[0, 0].tolist() == [1] * 4 + [5] * 4

    def test_a_fragment_without_an_edge_is_kept(self):
        found = run(of_row(0, 1, 0.8, 1, 0, 0, 0, 1, 1, 0), "--out", "seg.h5", "--block", "1,1,3")
        assert found[0, 0].tolist() == [1, 1, 1, 1, 0, 0, 7, 7, 7, 0]

    def test_far_affinities_keep_apart(self):
        values = np.zeros((4, 1, 1, 4), np.float32)
        values[0, 0, 0, 1:], values[3, 0, 0, 3] = (0.9, 0.6, 0.8), 0.3
        write("aff.h5", values, edges=[*XYZ, (0, 0, 3)])
        found = run("aff.h5", "--decoder", "mutex", "--threshold", 0.1, "--out", "seg.h5")[0, 0]
        assert [found[0] == found[1], found[2] == found[3], found[0] == found[3]] == [True, True, False]

    @pytest.mark.parametrize("block", ["64,64,64", "1,2,2"])
    def test_objects_that_meet_in_a_corner(self, block):
        values = np.zeros((1, 1, 4, 4), np.float32)
        values[0, 0, 1, 1] = values[0, 0, 2, 2] = 1
        write("mit.h5", values, edges=None)
        words = ("mit.h5", "--decoder", "objects", "--out", "seg.h5", "--block", block)
        assert [len(np.unique(run(*words, *more))) - 1 for more in ((), ("--corners",))] == [2, 1]


class TestStoppedRuns:
    @pytest.mark.parametrize("after", [0, 3, 12])
    @pytest.mark.parametrize("out", ["seg.h5", "file://seg"])
    def test_the_same_command_goes_on(self, monkeypatch, after, out):
        values, out, done = affinities(), out.replace("//", f"//{os.getcwd()}/"), []
        words = ["aff.h5", "--out", out, "--block", "8,16,20", "--threads", "1"]
        do = segment_tasks.SegmentTasks.do

        def breaking(self, phase, box, label):
            if len(done) == after:
                raise KeyboardInterrupt
            done.append((phase, box))
            return do(self, phase, box, label)

        with monkeypatch.context() as patch:
            patch.setattr(segment_tasks.SegmentTasks, "do", breaking)
            with pytest.raises(KeyboardInterrupt):
                segment.main(words)
        assert not Path("seg.h5").exists()
        first = {task for task in done if task[0] == "blocks"}
        monkeypatch.setattr(
            segment_tasks.SegmentTasks, "do", lambda self, *task: done.append(task[:2]) or do(self, *task)
        )
        np.testing.assert_array_equal(run(*words), in_memory(values))
        assert all(done.count(task) == 1 for task in first)

    def test_an_output_that_was_moved_away_is_written_again(self):
        values, out = affinities(), f"file://{os.getcwd()}/seg"
        words = ("aff.h5", "--out", out, "--work", "kept", "--block", "8,16,20")
        run(*words)
        Path("seg").rename("moved")
        np.testing.assert_array_equal(run(*words), in_memory(values))

    def test_what_another_run_left_is_not_taken(self, monkeypatch, capsys):
        affinities()
        words = ["aff.h5", "--out", "seg.h5", "--block", "8,16,20"]
        with monkeypatch.context() as patch:
            patch.setattr(segment_tasks.SegmentTasks, "graph", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                segment.main(words)
        values = affinities(seed=1)
        np.testing.assert_array_equal(run(*words), in_memory(values))
        assert "of another run that was stopped; begun anew" in capsys.readouterr().err

    def test_other_inputs_are_another_run(self, monkeypatch, capsys):
        affinities()
        words = ("aff.h5", "--out", "seg.h5", "--work", "kept")
        run(*words)
        affinities(seed=1)
        assert refused(capsys, *words).startswith("FILE: got other files than before, or changed ones, wants the same")


class TestQueue:
    WORDS = ("--program", "segment", "--voxels_per_s", "1e6", "--task_size", "20,16,8")

    @pytest.fixture
    def out(self):
        pytest.importorskip("taskqueue")
        from deepem.blocks import worker

        worker.tasks_of.cache_clear()
        return f"file://{os.getcwd()}/seg"

    def work(self, root, dies_in=""):
        code = (
            "import os, signal, sys\nfrom deepem.blocks import worker\nfrom deepem.tools import segment_tasks as t\n"
            "worker.LOOK_AGAIN_S = 0.05\ndo, left = t.SegmentTasks.do, [1]\n"
            "def dies(self, phase, box, label):\n"
            "    made = do(self, phase, box, label)\n"
            "    left[0] -= phase == sys.argv[1]\n"
            "    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return made\n"
            "t.SegmentTasks.do = dies\nworker.work('fq://queue', 1)\n"
        )
        env = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", code, dies_in], capture_output=True, text=True, env=env, check=False
        )
        assert done.returncode == (-signal.SIGKILL if dies_in else 0), done.stderr

    @pytest.mark.slow
    def test_killed_workers_leave_the_same_bytes(self, root, out):
        from deepem.tools import queue_enqueue, queue_plan, queue_status

        values = affinities()
        words = [*self.WORDS, "aff.h5", "--out", out, "--min_size", "9"]
        assert queue_plan.main(["--plan", "plan", *words]) == 0
        for phase in ("blocks", "", "segments", ""):
            queue_enqueue.main(["--plan", "plan", "--queue", "fq://queue"])
            self.work(root, phase)
            if not phase:
                queue_enqueue.main(["--plan", "plan", "--queue", "fq://queue"])
                self.work(root)
        assert queue_status.main(["--plan", "plan", "--verify"]) == 0
        np.testing.assert_array_equal(imread(out), in_memory(values, min_size=9))

    @pytest.mark.slow
    def test_an_array_job_does_all_phases(self, root, out):
        from deepem.tools import queue_plan

        values = affinities()
        assert queue_plan.main(["--plan", "plan", *self.WORDS, "aff.h5", "--out", out]) == 0
        Path("bin").mkdir()
        Path("bin/deepem").write_text(f'#!/bin/sh\nexec {sys.executable} -m deepem "$@"\n')
        Path("bin/deepem").chmod(0o755)
        env = os.environ | {"PYTHONPATH": str(root), "PATH": f"{os.getcwd()}/bin:{os.environ['PATH']}", "ROUND_S": "0"}
        command = ["bash", str(root / "scripts/slurm/blocks.sbatch"), "plan", "fq://queue", "--lease", "60"]
        workers = [
            subprocess.Popen(command, env=env | {"SLURM_ARRAY_TASK_ID": str(i), "SLURM_ARRAY_TASK_MIN": "1"})
            for i in (1, 2)
        ]
        assert [worker.wait(300) for worker in workers] == [0, 0]
        np.testing.assert_array_equal(imread(out), in_memory(values))
        gone = subprocess.run(
            [*command[:2], "none", "fq://queue"], env=env, capture_output=True, text=True, check=False
        )
        assert gone.returncode == 2

    def test_a_plan_is_cut_and_done(self, out, capsys):
        from deepem.blocks import worker
        from deepem.blocks.plan import Plan
        from deepem.tools import queue_plan

        values = affinities()
        assert queue_plan.main(["--plan", "plan", *self.WORDS, "aff.h5", "--out", out]) == 0
        assert capsys.readouterr().out.startswith("18 tasks, 12,240 voxels, 8 patches")
        plan = Plan.load("plan")
        while left := list(plan.offer()):
            assert all(worker.do_task("plan", number) for number in left)
        np.testing.assert_array_equal(imread(out), in_memory(values))
        assert worker.damaged(plan) == []
        Path("plan/labels/1.npy").write_bytes(b"x")
        assert worker.damaged(plan) == [1]

    def test_a_file_that_one_process_writes_is_no_output_of_a_plan(self, out, capsys):
        from deepem.tools import queue_plan

        affinities()
        with pytest.raises(SystemExit):
            queue_plan.main(["--plan", "plan", *self.WORDS, "aff.h5", "--out", "seg.h5"])
        assert "--out: got seg.h5, wants a zarr or precomputed volume" in capsys.readouterr().err
        assert not Path("plan").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "--out: got nothing, wants label volume"),
        (("--out", "s.tif"), "s.tif: got a TIFF file, wants a label volume in HDF5, zarr, precomputed"),
        (("--out", "no/s.h5"), "no/s.h5: got a folder that is not there"),
        (("--out", "s.h5", "--decoder", "mutex"), "--edges: got [(0, 0, 1), (0, 1, 0), (1, 0, 0)], wants a long-range"),
        (("--out", "s.h5", "--edges", "0,0,1"), "--edge_direction: got nothing, wants backward (v to v - edge)"),
        (("--out", "s.h5", "--edge_direction", "forward"), "--edge_direction: got forward, wants edges too"),
        (
            ("--out", "s.h5", "--edges", "1,0,0", "0,1,0", "0,0,1", "--edge_direction", "backward"),
            "aff.h5:main: got the edges [(0, 0, 1), (0, 1, 0), (1, 0, 0)], wants those that were named, [(1, 0, 0)",
        ),
        (("--out", "s.h5", "--threshold", "1.5"), "--threshold: got 1.5, wants a number from 0 to 1"),
        (("--out", "s.h5", "--threshold", ".5", "0.5"), "--threshold: got 0.5 0.5, wants different ones"),
        (("--out", "s.h5", "--split", "9"), "--split: got the decoder agglomerate, wants objects"),
        (("--out", "s.h5", "--decoder", "objects"), "--channel: got nothing for the 3 channels of aff.h5"),
        (("--out", "s.h5", "--decoder", "objects", "--channel", "3"), "--channel: got 3, wants 0 to 2"),
        (("--out", "s.h5", "--decoder", "components", "--threshold", ".1", ".2"), "--threshold: got 2 for the decoder"),
        (("--out", "s.h5", "--mask", "none.h5"), "none.h5: got no such file"),
        (("plain.h5", "--out", "s.h5"), "plain.h5:main: got no edges, wants --edges and --edge_direction"),
        (("loud.h5", "--out", "s.h5"), "loud.h5:main: got values from 0 to 7, wants numbers in [0, 1]"),
        (("far.h5", "--out", "s.h5"), "far.h5:main: got (12, 30, 34) voxels at (0, 0, 0), wants the voxels of aff.h5"),
        (("ids.h5", "--out", "s.h5"), "ids.h5:main: got int32, wants float in [0, 1]"),
    ],
)
def test_bad_words_are_one_line_and_leave_nothing(capsys, words, line):
    values = affinities()
    write("plain.h5", values, edges=None, offset=[3, 2, 1]), write("ids.h5", values.astype(np.int32), edges=XYZ)
    write("loud.h5", values * 0 + 7 * (values > 0.5), edges=[(0, 0, 4), (0, 4, 0), (4, 0, 0)], offset=[3, 2, 1])
    write("far.h5", values, edges=[(0, 0, 4), (0, 4, 0), (4, 0, 0)])
    before = sorted(os.listdir())
    if words and words[0] == "loud.h5":
        words = (*words, "--decoder", "mutex", "--threads", "1")
    if words and words[0] == "far.h5":
        words = (*words, "--decoder", "mutex")
    assert refused(capsys, "aff.h5", *words).startswith(line)
    assert [name for name in sorted(os.listdir()) if not name.startswith(".")] == before
