"""Runs the training loop in processes that Ray Train places on the machines of a cluster.

Every machine needs the working directory and the data at the same paths. Ray starts the processes and sets up their
process group. Everything else works as under torchrun, and the same command resumes from the newest checkpoint. One
actor connects this process with those of the cluster::

    here    --asked to stop-->        Link  --->  every process saves after its step
    here    <---  the first ending    Link  <---  a process that fails or is done
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from deepem.cli.training import TrainOptions
from deepem.train.preempt import SIGNALS, Preemption
from deepem.train.rank_errors import first_cause_speaks
from deepem.utils.errors import InputError, warn

POLL_S = 0.2

CHATTER = "Failed to query Ray Train Controller actor state|Actor with class name: 'PreemptionWatcher'"
"""Warnings that Ray Train's own helpers repeat and that users can do nothing about."""


class Link:
    """The actor through which the launching process and the training processes communicate."""

    def __init__(self) -> None:
        self.stop, self.endings = threading.Event(), list[Any]()

    def ask(self) -> None:
        """Ask all processes to stop."""
        self.stop.set()

    def asked(self) -> bool:
        """Wait up to a minute for a request to stop; return whether there was one."""
        return self.stop.wait(60)

    def ended(self, how: Any) -> None:
        """Record that a process ended: with an exit code, bad input, or a traceback as text."""
        self.endings.append(how)

    def first(self) -> Any:
        """How the first process to end ended; None while all are running."""
        return self.endings[0] if self.endings else None


def launch_on_ray(options: TrainOptions) -> int:
    """Train in `--ray` processes of the running Ray cluster, or of a new one on this machine; return the exit code.

    Raises:
        InputError: Ray is not installed, or the first process to fail met bad input.
    """
    if options.device.gpu_ids:
        raise InputError("--gpu_ids", "GPUs by number", "none of them with --ray, which chooses them")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", CHATTER)
    try:
        import ray
        from ray import train
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise InputError("--ray", f"no package {error.name}", "pip install deepem[ray]") from None
    if not ray.is_initialized():
        paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        ray.init(runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}, logging_level="WARNING")
    there = ray.cluster_resources()
    gpu = not options.device.cpu and there.get("GPU", 0) > 0
    if not gpu and not options.device.cpu:
        warn("no GPU in the Ray cluster: running on its CPUs")
    kind = "GPU" if gpu else "CPU"
    if there.get(kind, 0) < options.device.ray:
        warn(f"--ray {options.device.ray}: the cluster has {there.get(kind, 0):.0f} {kind}s now; waiting for more")
    link: Any = ray.remote(num_cpus=0, max_concurrency=options.device.ray + 4)(Link).remote()
    with tempfile.TemporaryDirectory(prefix=".ray_", dir=".") as scratch:  # all machines can read this folder
        trainer = TorchTrainer(
            _train,
            train_loop_config={"link": link, "folder": os.getcwd(), "options": options},
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo", timeout_s=int(options.device.rank_timeout)),
            scaling_config=train.ScalingConfig(num_workers=options.device.ray, use_gpu=gpu),
            run_config=train.RunConfig(
                name="run",
                storage_path=str(Path(scratch).resolve()),
                logging_config=train.LoggingConfig(log_level="CRITICAL"),  # the errors that matter are reported here
            ),
        )
        failure = _fit(trainer, link)
    how = ray.get(link.first.remote())
    if isinstance(how, InputError):
        raise how
    if how is None and failure is not None:
        raise failure
    if isinstance(how, str):
        sys.stderr.write(how)
        return 1
    return int(how or 0)


def _fit(trainer: Any, link: Any) -> Exception | None:
    """Run a trainer to its end and forward requests to stop; return its error, if any."""

    def hand_on(number: int, frame: object) -> None:
        warn(f"{signal.Signals(number).name}: saving after this step")
        link.ask.remote()

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        with ThreadPoolExecutor(1) as pool:  # the main thread must stay free to receive signals
            done = pool.submit(trainer.fit)
            while not wait([done], POLL_S).done:
                pass
            error = done.exception()
            return error if isinstance(error, Exception) else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train(config: dict[str, Any]) -> None:
    """The function that each process of the cluster runs."""
    import ray

    from deepem.train.session import train

    os.chdir(config["folder"])
    link, asked = config["link"], threading.Event()

    def listen() -> None:
        while not ray.get(link.asked.remote()):
            pass
        asked.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        with first_cause_speaks(asked.is_set), Preemption(asked) as preemption:
            train(config["options"], preemption)
    except SystemExit as end:
        ray.get(link.ended.remote(end.code))
    except InputError as error:
        ray.get(link.ended.remote(error))
        raise
    except BaseException:
        ray.get(link.ended.remote(traceback.format_exc()))
        raise
