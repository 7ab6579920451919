"""From options and a checkpoint to output files: the network, and one volume after the other through it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepem import option, tasks
from deepem.scan.grid import Grid, resolve_stride
from deepem.scan.stitch import Finished, Scan
from deepem.scan.weights import Blend, choose_profile
from deepem.test.network import Network
from deepem.test.option import Options, folder
from deepem.test.progress import Progress
from deepem.test.sink import Hdf5Sink, attributes_of
from deepem.test.source import Source, opened
from deepem.utils import checkpoint, modules
from deepem.utils.argv import plug_in
from deepem.utils.checkpoint import State
from deepem.utils.crop import centre_slices
from deepem.utils.errors import InputError, warn
from deepem.utils.geometry import Box, Vec3, vec3


class Job:
    """A trained network and how it is slid over volumes.

    Attributes:
        tasks: The rows that are predicted.
        patch: The input patch, (z, y, x).
        output: The output patch.
        front: Voxels of the patch in front of the output, as the network was trained to crop.
    """

    def __init__(self, options: Options, number: int, state: State) -> None:
        self.options, self.number = options, number
        self.device = torch.device(option.device(options["gpu_id"], options["cpu"]))
        self.tasks = option.chosen_tasks(options)
        self.patch = vec3(options["inputsz"])
        self.channels = _input_channels(state)
        module = modules.load("model", options["model"])
        flags = {flag.name: options[flag.name] for flag in modules.flags("model", module)}
        croppable = "cropsz" in inspect.signature(module.create_model).parameters
        gives, cropsz = option.output_patch(module, flags, self.patch, options["outputsz"] if croppable else None)
        self.output = vec3(options["outputsz"] or gives)
        if any(o > g for o, g in zip(self.output, gives, strict=True)):
            raise InputError("--outputsz", self.output, f"at most {gives}, what the model gives")
        self.front = vec3(s.start for s in centre_slices(self.patch, self.output))
        self.stride = resolve_stride(self.output, options["overlap"], options["stride"])
        filled: dict[str, Any] = {
            "in_spec": {"input": (self.channels, *self.patch)},
            "out_spec": tasks.out_spec(self.tasks, gives),
        }
        if croppable:
            filled["cropsz"] = cropsz
        with plug_in("--model", options["model"]):
            model: nn.Module = module.create_model(**filled, **flags)
        where = checkpoint.path_of(folder(options["exp_name"]) / "models", number)
        weights = _without_other_heads(state["state_dict"], self.tasks)
        left = checkpoint.load_weights(model, weights, where, matching=options["pretrain"])
        if left:
            warn(f"{where}: not in it, or of another shape: {', '.join(left)}")
        self.model = model.to(self.device).train(options["no_eval"])

    def scan(self, size: Vec3, bar: Progress | None = None) -> Scan:
        """The scan of a volume of a given size."""
        grid = Grid(size, self.patch, self.output, self.stride, self.front)
        return Scan(
            grid,
            Network(self.model, self.output, self.front, self.options["temperature"], self.options["amp"]),
            default=Blend(choose_profile(self.options["blend"], self.options["bump"], grid)),
            device=self.device,
            batch_size=self.options["batch_size"],
            channels={task.name: task.channels for task in self.tasks},
            done=None if bar is None else bar.add,
        )

    def paths(self, name: str) -> dict[str, Path]:
        """The file of each output: experiments/<exp>/forward/[<prefix>_]<id>_<output>_<N>[_<tag>].h5."""
        prefix = f"{self.options['out_prefix']}_" if self.options["out_prefix"] else ""
        tag = f"_{self.options['out_tag']}" if self.options["out_tag"] else ""
        stem = f"{prefix}{name.replace('/', '_')}"
        where = folder(self.options["exp_name"]) / "forward"
        return {task.name: where / f"{stem}_{task.name}_{self.number}{tag}.h5" for task in self.tasks}

    def predict(self, name: str) -> None:
        """Predict the volume of an id, and write a file per output."""
        with opened(Path(self.options["data_dir"]) / name / self.options["input_name"]) as source:
            if source.channels != self.channels:
                raise InputError(source.name, f"{source.channels} channels", f"{self.channels}, as in training")
            covered = self.scan(source.size).grid.covered
            attributes = {
                task.name: attributes_of(task.flag, task.edges, covered.begin, source.voxel_size_nm)
                for task in self.tasks
            }
            channels = {task.name: task.channels for task in self.tasks}
            with Hdf5Sink(self.paths(name), channels, covered, attributes=attributes) as sink:
                self._stream(source, sink, name)

    def _stream(self, source: Source, sink: Hdf5Sink, name: str) -> None:
        """Read, compute and write at the same time: input one run ahead, output one run behind."""

        def read(box: Box) -> torch.Tensor:
            return source.tensor(box, self.device)

        def write(finished: Finished) -> None:
            box, sums = finished
            sink.write(box, {key: value.cpu().numpy() for key, value in sums.items()})

        scan = self.scan(source.size)
        patches, voxels = scan.grid.count(scan.grid.covered), scan.grid.covered.voxels
        with Progress(patches, voxels, label=name) as bar, ThreadPoolExecutor(1, "write") as pool:
            scan.done = bar.add
            behind: Future[None] | None = None
            for finished in scan.run(read):
                if behind is not None:
                    behind.result()
                behind = pool.submit(write, finished)
            if behind is not None:
                behind.result()


def _without_other_heads(weights: Mapping[str, Any], chosen: Sequence[tasks.Task]) -> dict[str, Any]:
    """The weights less those of heads that are known tasks but not asked for."""
    others = {task.name for task in tasks.TASKS} - {task.name for task in chosen}
    return {
        key: value for key, value in weights.items() if not (key.startswith("out.") and key.split(".")[1] in others)
    }


def _input_channels(state: State) -> int:
    """Channels of the image: as in training, else those of the public network's first convolution, else one."""
    spec = state.get("spec")
    if spec:
        return int(spec[0]["input"][0])
    first = state["state_dict"].get("in.conv.weight")
    return 1 if first is None else int(first.shape[1])
