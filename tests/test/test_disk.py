"""A disk that runs full for real: a small file system of its own, mounted for the test."""

import os
import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.slow
cloudvolume = pytest.importorskip("cloudvolume")
pytest.importorskip("taskqueue")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SIZE = (16, 128, 128)


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all of a disk but so many bytes."""
    status = os.statvfs(disk)
    rest = disk / "ballast"
    rest.write_bytes(bytes(status.f_bavail * status.f_frsize - leave))
    return rest


def run(root, program, *words):
    command = [sys.executable, str(root / program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)


def test_files(lab, root, disk):
    """Neither output appears; with room again the same command gives the bytes of a run elsewhere."""
    lab.image("a", SIZE)
    words = ["--exp_name", "exp", "--cpu", "--data_dir", "data", "--test_ids", "a"]
    assert run(root, "deepem/test/forward.py", *words).returncode == 0
    wanted = {name: (lab.folder / "experiments/exp/forward" / name).read_bytes() for name in lab.files()}
    (lab.folder / "experiments/exp/forward").rename(lab.folder / "elsewhere")
    (lab.folder / "experiments/exp/forward").symlink_to(disk)
    ballast = fill(disk, 1_000_000)
    done = run(root, "deepem/test/forward.py", *words)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert line.startswith("forward.py: error: experiments/exp/forward/a_")
    assert line.endswith("got a full disk, wants room for the output")
    assert lab.files() == ["ballast"]
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert run(root, "deepem/test/forward.py", *words).returncode == 0
    for name, value in wanted.items():
        with h5py.File(lab.folder / "elsewhere" / name) as one, h5py.File(disk / name) as other:
            np.testing.assert_array_equal(one["main"], other["main"])
        assert len(value) == (disk / name).stat().st_size


@pytest.mark.parametrize("also", ["outputs", "outputs, plan and queue"])
def test_workers(lab, root, disk, also):
    """A task that does not fit is named and not marked; with room again the rest is done, and all is as in one run."""
    array = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)
    em = f"file://{lab.folder}/em"
    cloudvolume.CloudVolume.from_numpy(
        array.transpose(2, 1, 0)[..., None].copy(), em, resolution=(4, 4, 40), chunk_size=(32, 32, 8), progress=False
    )
    common = ["--exp_name", "exp", "--cpu", "--mit", "--gs_input", em, "--chunk_size", "32,32,8"]
    assert run(root, "deepem/test/forward.py", *common, "--gs_output", f"file://{lab.folder}/serial").returncode == 0
    where = disk if "queue" in also else lab.folder
    plan, queue = where / "plan", f"fq://{where}/queue"
    made = run(root, "deepem", "queue", "plan", "--plan", plan, "--task_size", "64,64,8", "--voxels_per_s", 1,
               *common, "--gs_output", f"file://{disk}/out")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert run(root, "deepem", "queue", "enqueue", "--plan", plan, "--queue", queue).returncode == 0
    ballast = fill(disk, random.Random(also).randrange(200_000, 600_000))
    done = run(root, "deepem", "queue", "work", "--queue", queue, "--lease", 5)
    assert "Traceback" not in done.stderr, done.stderr
    assert "task " in done.stderr
    assert "got a full disk, wants room" in done.stderr
    status = run(root, "deepem", "queue", "status", "--plan", plan, "--verify")
    assert status.returncode == 1
    assert "damaged 0" not in status.stdout or "output is not" not in status.stdout
    ballast.unlink()
    for _ in range(3):
        assert run(root, "deepem", "queue", "enqueue", "--plan", plan, "--queue", queue, "--verify").returncode == 0
        assert run(root, "deepem", "queue", "work", "--queue", queue, "--lease", 5).returncode == 0
    assert run(root, "deepem", "queue", "status", "--plan", plan, "--verify").returncode == 0
    found, wanted = (
        np.asarray(cloudvolume.CloudVolume(f"file://{place}/mitochondria", progress=False)[:])
        for place in (disk / "out", lab.folder / "serial")
    )
    np.testing.assert_array_equal(found, wanted)
    left = [path.name for path in (disk / "out").rglob("*") if path.name.endswith(".part")]
    assert left == []
