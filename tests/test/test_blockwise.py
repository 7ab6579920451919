"""A prediction in tasks: the cuts change no bit, what is done stays done, and what goes wrong is named or redone."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from deepem.blocks import queue as queues
from deepem.blocks import worker
from deepem.blocks.folder import Folder
from deepem.blocks.plan import Plan
from deepem.test import blockwise
from deepem.utils.errors import InputError

cloudvolume = pytest.importorskip("cloudvolume")
pytest.importorskip("taskqueue")

SIZE = (9, 50, 40)


@pytest.fixture
def em(lab, monkeypatch):
    """An image volume, and the flags that predict it into the folder `out`."""
    monkeypatch.setattr(worker, "WAIT_S", 0)
    worker.tasks_of.cache_clear()
    array = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)
    path = f"file://{lab.folder}/em"
    cloudvolume.CloudVolume.from_numpy(
        array.transpose(2, 1, 0)[..., None].copy(), path, resolution=(4, 4, 40), voxel_offset=(10, 20, 5),
        chunk_size=(8, 8, 4), progress=False,
    )  # fmt: skip
    return path


def words(lab, em, out="out"):
    return ["--exp_name", "exp", "--cpu", "--mit", "--gs_input", em, "--gs_output", f"file://{lab.folder}/{out}",
            "--chunk_size", "16,16,4"]  # fmt: skip


def serial(lab, em):
    lab.forward(*words(lab, em, "serial")[3:])
    return output(lab, "serial")


def output(lab, out="out"):
    source = cloudvolume.CloudVolume(f"file://{lab.folder}/{out}/mitochondria", progress=False)
    return np.asarray(source[:])


def boxes(plan):
    return plan.phases[0].boxes


def do(plan, number):
    return worker.do_task(plan.folder, number)


def make(lab, em, *more):
    return blockwise.make_plan("plan", [*words(lab, em), *more], (8, 32, 32))


def test_a_plan_does_not_grow_with_its_volume(lab):
    path = f"file://{lab.folder}/huge"
    info = cloudvolume.CloudVolume.create_new_info(
        1, "image", "uint8", "raw", (4, 4, 40), (0, 0, 0), (1_000_000, 1_000_000, 30_000), chunk_size=(128, 128, 32)
    )
    cloudvolume.CloudVolume(path, info=info, progress=False).commit_info()
    plan = blockwise.make_plan("plan", words(lab, path), (128, 1024, 1024))
    assert len(plan) == 235 * 977 * 977
    assert boxes(plan)[977].begin == (0, 1024, 0)
    assert boxes(plan)[len(plan) - 1].end == (30_000, 1_000_000, 1_000_000)
    assert list(itertools.islice(plan.left(), 3)) == [0, 1, 2]
    assert (lab.folder / "plan/plan.json").stat().st_size < 1000


def test_tasks_in_any_order_give_the_bytes_of_the_serial_run(lab, em):
    wanted = serial(lab, em)
    plan = make(lab, em)
    assert Plan.load("plan") == plan
    assert len(plan) == 2 * 2 * 2
    effort = blockwise.effort(plan)
    assert effort.patches > effort.uncut
    order = list(range(len(plan)))
    random.Random(0).shuffle(order)
    assert all(do(plan, number) for number in order)
    np.testing.assert_array_equal(output(lab), wanted)
    assert plan.done() == set(order)
    assert not plan.failed()


def test_flips_and_contrast_do_not_depend_on_the_cut_either(lab, em):
    more = ["--test_aug", "0", "11", "--gs_input_norm", "0.05", "0.1"]
    lab.forward(*words(lab, em, "serial")[3:], *more)
    plan = make(lab, em, *more)
    for number in range(len(plan)):
        do(plan, number)
    assert blockwise.effort(plan).patches == sum(
        json.loads(file.read_text())["patches"] for file in lab.folder.glob("plan/done/0/*")
    )
    np.testing.assert_array_equal(output(lab), output(lab, "serial"))


def test_a_task_that_is_done_is_not_done_again(lab, em, monkeypatch):
    plan = make(lab, em)
    assert do(plan, 3)
    monkeypatch.setattr(blockwise.Predictions, "do", lambda *_: pytest.fail("computed again"))
    assert not do(plan, 3)


@pytest.mark.parametrize("damage", ["changed", "cut short", "gone"])
def test_a_damaged_block_is_found_and_redone_alone(lab, em, damage):
    wanted = serial(lab, em)
    plan = make(lab, em)
    for number in range(len(plan)):
        do(plan, number)
    assert worker.damaged(plan) == []
    victim = sorted((lab.folder / "out/mitochondria").glob("4*/*"))[5]
    if damage == "gone":
        victim.unlink()
    else:
        held = bytearray(victim.read_bytes())
        held[100] ^= 1
        victim.write_bytes(held if damage == "changed" else held[:-7])
    (number,) = worker.damaged(plan)
    plan.forget(number)
    assert number not in plan.done()
    assert worker.enqueue(plan, "fq://queue") == 1
    assert worker.work("fq://queue", 60) == 1
    assert worker.damaged(plan) == []
    np.testing.assert_array_equal(output(lab), wanted)


def test_a_marker_that_is_not_whole_is_no_marker(lab, em):
    plan = make(lab, em)
    do(plan, 0)
    (lab.folder / "plan/done/0/0.json").write_text('{"blocks": [')
    assert worker.damaged(plan) == [0]
    assert do(plan, 0)


def test_an_input_chunk_that_cannot_be_read_fails_its_tasks_alone(lab, em):
    wanted = serial(lab, em)
    victim = next((lab.folder / "em").glob("4*/42-50_68-70_13-14*"))
    held = victim.read_bytes()
    victim.write_bytes(b"\x1f\x8bnothing")
    plan = make(lab, em)
    worker.enqueue(plan, "fq://queue")
    worker.work("fq://queue", 60)
    failed = plan.failed()
    assert failed
    assert plan.done() == set(range(len(plan))) - set(failed)
    for number, line in failed.items():
        assert f"task {number}" in line
        assert f"{em}/{victim.parent.name}/42-50_68-70_13-14: got an unreadable chunk" in line
    victim.write_bytes(held)
    worker.enqueue(plan, "fq://queue")
    assert worker.work("fq://queue", 60) == len(failed)
    assert not plan.failed()
    np.testing.assert_array_equal(output(lab), wanted)


def test_a_disk_that_cannot_take_a_block_is_noted_and_tried_again_later(lab, em, monkeypatch):
    plan = make(lab, em)

    def full(volume, box, array):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(blockwise, "put", full)
        assert not do(plan, 2)
    assert "No space left" in plan.failed()[2]
    assert do(plan, 2)
    assert not plan.failed()


def test_a_queue_that_vanishes_is_named_and_what_is_done_is_done(lab, em, monkeypatch):
    plan = make(lab, em)
    worker.enqueue(plan, "fq://queue")
    do = blockwise.Predictions.do

    def last_one(self, *task):
        done = do(self, *task)
        shutil.rmtree("queue")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(blockwise.Predictions, "do", last_one)
        with pytest.raises(InputError, match="fq://queue"):
            worker.work("fq://queue", 60)
    assert len(plan.done()) == 1
    assert not (lab.folder / "queue").exists()
    with pytest.raises(InputError, match="fq://queue"):
        worker.work("fq://queue", 60)
    worker.enqueue(plan, "fq://queue")
    assert worker.work("fq://queue", 60) == len(plan) - 1


def test_an_empty_queue_ends_the_work(lab):
    queues.open_queue("fq://queue", worker.do_task, make=True)
    assert worker.work("fq://queue", 60) == 0


def test_what_makes_no_plan_is_refused(lab, em):
    with pytest.raises(InputError, match="--gs_input"):
        blockwise.make_plan("plan", ["--exp_name", "exp", "--cpu", "--test_ids", "a"], (4, 16, 16))
    with pytest.raises(InputError, match=r"--downsample.*once all tasks are done.*downsample\("):
        make(lab, em, "-d")
    with pytest.raises(InputError, match=r"--task_size: got 16,0,4, wants three sizes"):
        blockwise.make_plan("plan", words(lab, em), (4, 0, 16))
    with pytest.raises(InputError, match="foo://plan: got the protocol foo://"):
        blockwise.make_plan("foo://plan", words(lab, em), (4, 16, 16))
    assert sorted(path.name for path in lab.folder.iterdir()) == ["em", "experiments"]
    make(lab, em)
    with pytest.raises(InputError, match="a plan that is there"):
        make(lab, em)
    with pytest.raises(InputError, match=r"plan\.json"):
        Plan.load("nothing")


def test_a_folder_that_cannot_take_a_plan_is_refused_before_the_network_is_built(lab, em, monkeypatch):
    (lab.folder / "file").write_text("")
    monkeypatch.setattr(blockwise, "Job", lambda *_: pytest.fail("built"))
    with pytest.raises(InputError, match="file/plan: got a place that cannot be written to"):
        blockwise.make_plan("file/plan", words(lab, em), (4, 16, 16))


def test_a_plan_that_cannot_be_written_leaves_no_new_volumes_behind(lab, em, monkeypatch):
    put = Folder.put

    def fails(folder, name, value):
        if name == "plan.json":
            raise InputError(folder.path, "a full disk", "room")
        put(folder, name, value)

    monkeypatch.setattr(Folder, "put", fails)
    with pytest.raises(InputError, match="full disk"):
        make(lab, em)
    assert sorted(path.name for path in lab.folder.iterdir()) == ["em", "experiments"]


@pytest.mark.parametrize("queue", ["q", "foo://x", "fq://", "sqs://", "mem://x"])
@pytest.mark.parametrize("make", [True, False])
def test_a_queue_that_is_none_is_refused(lab, queue, make):
    with pytest.raises(InputError, match=rf"queue: got {queue}, wants fq://FOLDER or sqs://QUEUE"):
        queues.open_queue(queue, worker.do_task, make=make)
    assert sorted(path.name for path in lab.folder.iterdir()) == ["experiments"]


def test_a_queue_that_cannot_be_opened_is_refused(monkeypatch, lab):
    def fails(*_, **__):
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr("taskqueue.TaskQueue", fails)
    with pytest.raises(InputError, match=r"queue: got sqs://q, which cannot be opened \(RuntimeError: Unable to"):
        queues.open_queue("sqs://q", worker.do_task)


@pytest.mark.parametrize(("size", "line"), [("-5,32,8", "got -5,32,8, wants three sizes x,y,z of 1 or more"),
                                            ("0,32,8", "got 0,32,8, wants three sizes x,y,z of 1 or more"),
                                            ("32,8", "got 32,8, wants three whole numbers")])  # fmt: skip
def test_a_task_size_that_is_none_is_refused_in_one_line(lab, em, root, size, line):
    done = script(root, "plan", "--plan", "plan", "--task_size", size, *words(lab, em))
    assert done.returncode == 2
    assert f"deepem queue plan: error: --task_size: {line}" in done.stderr
    assert not (lab.folder / "plan").exists()


def script(root, name, *words, **options):
    command = [sys.executable, str(root / "deepem"), "queue", name, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, **options)


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killing_workers_at_any_moment_gives_the_same_bytes(lab, em, root):
    """Plan, enqueue and status as scripts; workers are killed one after the other until all is done."""
    lab.forward(*words(lab, em, "serial")[3:])
    done = script(root, "plan", "--plan", "plan", "--task_size", "32,16,4", *words(lab, em))
    assert "24 tasks" in done.stdout, done.stderr
    assert "GPU hours" in done.stdout
    queue = ["--plan", "plan", "--queue", "fq://queue"]
    assert "24 of 24" in script(root, "enqueue", *queue).stdout
    assert script(root, "status", *queue).returncode == 1
    drawn = random.Random(0)
    command = [sys.executable, str(root / "deepem"), "queue", "work", "--queue", "fq://queue", "--lease", "3"]
    kills = 0
    for _ in range(60):
        running = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = len(Plan.load("plan").done())
        while running.poll() is None and len(Plan.load("plan").done()) < before + 2:
            time.sleep(0.005)
        time.sleep(drawn.random() * 0.1)
        if running.poll() is not None:
            assert running.returncode == 0
            break
        running.send_signal(signal.SIGKILL)
        running.wait()
        kills += 1
    assert kills >= 3
    status = json.loads(script(root, "status", *queue, "--verify", "--json").stdout)
    assert status == {"tasks": 24, "done": 24, "failed": {}, "damaged": [], "enqueued": 0, "leased": 0}
    np.testing.assert_array_equal(output(lab), output(lab, "serial"))


@pytest.mark.slow
def test_a_worker_stopped_beyond_its_lease_and_woken_changes_nothing(lab, em, root):
    """While it sleeps another one does its task and all others; then it goes on where it was."""
    wanted = serial(lab, em)
    script(root, "plan", "--plan", "plan", "--task_size", "32,32,8", "--voxels_per_s", "1", *words(lab, em))
    script(root, "enqueue", "--plan", "plan", "--queue", "fq://queue")
    command = [sys.executable, str(root / "deepem"), "queue", "work", "--queue", "fq://queue", "--lease", "2"]
    sleeper = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        while not any((lab.folder / "out").glob("mitochondria/4*/*")):
            time.sleep(0.002)
        sleeper.send_signal(signal.SIGSTOP)
        plan = Plan.load("plan")
        stopped_with = plan.done()
        assert script(root, "work", "--queue", "fq://queue", "--lease", "2").returncode == 0
        assert plan.done() == set(range(len(plan)))
        assert stopped_with != plan.done()
    finally:
        sleeper.send_signal(signal.SIGCONT)
    assert sleeper.wait(60) == 0, sleeper.stderr.read()
    assert worker.damaged(plan) == []
    np.testing.assert_array_equal(output(lab), wanted)


@pytest.mark.slow
def test_workers_on_the_same_tasks_at_the_same_time_write_the_same_bytes(lab, em, root):
    wanted = serial(lab, em)
    plan = make(lab, em)
    code = f"import sys; sys.path.insert(0, {str(root)!r})\nfrom deepem.blocks.worker import do_task\n" \
           "for n in range(8): do_task('plan', n)"  # fmt: skip
    several = [subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT) for _ in range(3)]
    assert [one.wait() for one in several] == [0, 0, 0]
    assert plan.done() == set(range(8))
    assert worker.damaged(plan) == []
    assert not plan.failed()
    np.testing.assert_array_equal(output(lab), wanted)


def test_a_killed_writer_leaves_the_block_that_another_wrote(lab, em, monkeypatch):
    """The chunk of a done task is written again by a worker that dies in the middle: the file stays as it was."""
    plan = make(lab, em)
    do(plan, 0)

    def dies(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", dies)
        with pytest.raises(KeyboardInterrupt):
            worker.tasks_of("plan", os.getcwd()).do("predict", plan.box(0), "again")
    assert worker.damaged(plan) == []


def test_small_volumes_are_padded_in_tasks_as_in_one_run(lab, em):
    small = ["-b", "12,25,6", "-s", "12,40,3", "--pad_small"]
    lab.forward(*words(lab, em, "serial")[3:], *small)
    plan = blockwise.make_plan("plan", [*words(lab, em), *small], (4, 16, 16))
    assert all(do(plan, number) for number in range(len(plan)))
    np.testing.assert_array_equal(output(lab), output(lab, "serial"))
    assert output(lab).shape == (12, 40, 3, 1)


@pytest.mark.slow
def test_a_worker_whose_queue_is_gone_ends_with_one_line(lab, root):
    done = script(root, "work", "--queue", "fq://queue")
    assert done.returncode == 2
    assert done.stderr.startswith("deepem queue work: error: --queue: got fq://queue")
