"""Volumes, plans and queues in an object store: cloud-volume on S3, task-queue on SQS, against moto on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import Lab

from deepem.io.addresses import allow_keys_without_token
from deepem.io.faults import store_fault
from deepem.io.files import imread, imsave
from deepem.io.lazy import Lazy
from deepem.utils.errors import InputError

pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")
pytest.importorskip("cloudvolume")
pytest.importorskip("taskqueue")

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
SIZE = (9, 50, 40)
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of S3 and SQS."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A client of a store with the bucket `data`, keys in the environment, and no session token, as lasting keys."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST")).read()
    client = boto3.client("s3", endpoint_url=server)
    client.create_bucket(Bucket="data")
    return client


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    return Lab.with_checkpoint(tmp_path)


@pytest.fixture
def em(store: Any) -> str:
    """An image volume in chunks of 4x16x16, at an offset."""
    from cloudvolume import CloudVolume

    array = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)
    path = "s3://data/em"
    allow_keys_without_token()
    CloudVolume.from_numpy(
        array.transpose(2, 1, 0)[..., None].copy(), path, resolution=(4, 4, 40), voxel_offset=(10, 20, 5),
        chunk_size=(16, 16, 4), progress=False, compress=False,
    )  # fmt: skip
    return path


def words(em: str, out: str) -> list[str]:
    return ["--exp_name", "exp", "--cpu", "--mit", "--gs_input", em, "--gs_output", out, "--chunk_size", "16,16,4"]


def deepem(*given: str, **more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen([sys.executable, "-m", "deepem", *given], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_a_prediction_into_a_store_is_the_one_into_files(lab, store, em, tmp_path):
    lab.forward(*words(em, "s3://data/out")[3:])
    lab.forward(*words(em, f"file://{tmp_path}/out")[3:])
    np.testing.assert_array_equal(imread("s3://data/out/mitochondria"), imread(f"file://{tmp_path}/out/mitochondria"))


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_write_what_one_run_writes(lab, store, em, server, tmp_path):
    lab.forward(*words(em, "s3://data/serial")[3:])
    sqs = boto3.client("sqs", endpoint_url=server)
    sqs.create_queue(QueueName="work", Attributes={"VisibilityTimeout": "5"})
    plan = ["--plan", "s3://data/plan"]
    for verb in (
        ["plan", *plan, "--task_size", "16,16,4", "--voxels_per_s", "1e6", *words(em, "s3://data/out")],
        ["enqueue", *plan, "--queue", "sqs://work"],
    ):
        made = deepem("queue", *verb)
        out, err = made.communicate()
        assert made.returncode == 0, err
    assert "36 of 36 tasks" in out
    work = ["queue", "work", "--queue", "sqs://work", "--lease", "5"]
    first, second = deepem(*work), deepem(*work)
    deadline = time.monotonic() + 100
    while store.list_objects_v2(Bucket="data", Prefix="plan/done/")["KeyCount"] < 3 and time.monotonic() < deadline:
        assert first.poll() is None
        second.poll()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    status = deepem("queue", "status", *plan)
    assert "tasks 36, done 36" in status.communicate()[0]
    np.testing.assert_array_equal(imread("s3://data/out/mitochondria"), imread("s3://data/serial/mitochondria"))


S3_DATA = """
from deepem.data.emio import lazily, imread

data_info = {"a": "in a store"}

def load_data(data_dir, data_ids=None, *, lazy=False, **_):
    read = lazily if lazy else imread
    return {"a": {"img": read("s3://data/em"), "seg": read("s3://data/seg")}}
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_a_store_gives_the_weights_of_training_in_memory(store, em, tmp_path, monkeypatch, workers):
    monkeypatch.chdir(tmp_path)
    lab = Lab.with_network(tmp_path, monkeypatch)
    imsave(np.arange(np.prod(SIZE), dtype=np.uint64).reshape(SIZE) // 50, "s3://data/seg")
    lab.module.write_text(S3_DATA)
    lab.base[lab.base.index("--mit") : lab.base.index("--mit") + 2] = []
    more = ("--max_iter", 5, "--val_ids", "a")
    lab.train("memory", *more)
    lab.train("lazy", *more, "--lazy", "--num_workers", workers, "--cache_mb", workers)
    from lab import same

    assert same(lab.state("memory", 5)["state_dict"], lab.state("lazy", 5)["state_dict"])


# What goes wrong


def test_a_chunk_that_is_missing_is_told(lab, store, em, capsys):
    name = next(o["Key"] for o in store.list_objects_v2(Bucket="data", Prefix="em/4_4_40/")["Contents"])
    store.delete_object(Bucket="data", Key=name)
    lab.forward(*words(em, "s3://data/out")[3:])
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert told == [f"warning: {em}: 1 chunk is absent and read as the fill value, such as {name.removeprefix('em/')}"]
    np.asarray(Lazy(em))
    assert f"{em}: the chunk {name.removeprefix('em/')} is absent" in capsys.readouterr().err


def test_a_worker_tells_of_the_chunks_that_its_task_misses(lab, store, em, capsys, monkeypatch):
    from deepem.blocks import worker
    from deepem.test import blockwise

    worker.tasks_of.cache_clear()
    name = "em/4_4_40/10-26_20-36_5-9"
    store.delete_object(Bucket="data", Key=name)
    plan = blockwise.make_plan("s3://data/plan", words(em, "s3://data/out"), (16, 64, 64))
    assert worker.do_task(plan.folder, 0)
    err = capsys.readouterr().err
    assert f"task 0 of 1: {em}: 1 chunk is absent and read as the fill value, such as {name.removeprefix('em/')}" in err


def test_a_chunk_size_that_is_not_that_of_the_files_is_refused(store, em):
    import json

    info = json.loads(store.get_object(Bucket="data", Key="em/info")["Body"].read())
    info["scales"][0]["chunk_sizes"] = [[20, 25, 3]]
    store.put_object(Bucket="data", Key="em/info", Body=json.dumps(info))
    with pytest.raises(InputError, match=r"em/4_4_40: got none of its chunks of \(3, 25, 20\), but files such as "):
        np.asarray(Lazy(em))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "change", "line"),
    [
        ("s3://data/em", {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no credentials"),
        ("s3://nowhere/em", {}, "no such bucket"),
        ("s3://data/other", {}, "no volume that can be opened"),
        ("s3://data/em", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "a server that does not answer"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(lab, em, path, change, line, tmp_path):
    env = {name: value for name, value in os.environ.items() if name not in change}
    env |= {name: value for name, value in change.items() if value is not None}
    env |= {"PYTHONPATH": ROOT, "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    call = [sys.executable, "-m", "deepem", "forward", *words(path, "s3://data/out")]
    ended = subprocess.run(call, env=env, text=True, capture_output=True, timeout=300)
    told = [one for one in ended.stderr.splitlines() if not one.startswith("using")]
    assert ended.returncode == 2
    assert len([one for one in told if "error: " in one]) == 1, told
    assert f"error: {path}: got {line}" in told[-1], told
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("SlowDown", 503, "got a server that fails"),
        ("500", 500, "got a server that fails"),
        ("InvalidAccessKeyId", 403, "got no access"),
        ("NoSuchBucket", 404, "got no such bucket"),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, "got no such queue"),
    ],
)
def test_what_a_store_answers_becomes_one_line(code, status, words):
    from botocore.exceptions import ClientError

    answer = {"Error": {"Code": code, "Message": "two\nlines"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = RuntimeError("wrapped")
    error.__cause__ = ClientError(answer, "GetObject")
    told = store_fault("s3://data/v", error)
    assert told is not None
    assert words in str(told)
    assert "\n" not in str(told)
    assert store_fault("s3://data/v", ValueError("something else")) is None
