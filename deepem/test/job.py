"""A trained network, ready to be slid over volumes, and one volume after the other through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import nn

from deepem.build.device import choose_device, has_fast_bf16
from deepem.build.network import PatchSizes, create_network, crops, evaluates_smaller, patch_sizes
from deepem.cli.forward_parser import Found
from deepem.cli.forwarding import ForwardOptions
from deepem.cli.task_flags import stored_rows, task_options
from deepem.io.volume import Volume
from deepem.scan.augment import VARIANCE, Augmented
from deepem.scan.flips import Flip
from deepem.scan.grid import Grid, resolve_stride
from deepem.scan.heads import blends
from deepem.scan.kinds import activations, edges_by_output, is_dense
from deepem.scan.memory import Cost, Cut, available, cut, trial
from deepem.scan.patch_network import Network
from deepem.scan.progress import Progress, tell
from deepem.scan.stitch import Scan
from deepem.scan.weights import Blend, choose_profile
from deepem.tasks import TASKS, Task
from deepem.test.kinds import Written, written
from deepem.test.stream import Sink, largest_that_fits, stream
from deepem.utils import checkpoint
from deepem.utils.checkpoint import State
from deepem.utils.convolution import quicken
from deepem.utils.crop import centre_slices
from deepem.utils.errors import InputError, reason, warn
from deepem.utils.geometry import Box, Vec3, vec3
from deepem.utils.intensity import from_plain
from deepem.utils.main_memory import in_words
from deepem.utils.provenance import checksum, provenance


class Readable(Volume, Protocol):
    """A volume of which a part may be predicted, in voxels of the output."""

    inside: Box


class Job:
    """A trained network and how it is slid over volumes.

    Attributes:
        tasks: The rows that are predicted.
        objects: Those of them whose output is a list of objects; what follows is of the others.
        sizes: The patches of the network.
        patch: The input patch, (z, y, x).
        fine_patch: The input patch in voxels of the output, in which the scan counts.
        output: The output patch.
        front: Voxels of the output that the patch has in front of it, as the network was trained to crop.
        channels: Channels of the image.
        intensity: Which grey values become 0 and 1; None for bytes and floats in [0, 1].
        heads: Name of each output of the network -> number of channels.
        written: The volumes that are written, variances included.
        outputs: Name of each of them -> number of channels.
        files: The same, with those of objects.
        dtypes: Name of each of them -> type.
        classes: Names of those that are classes.
    """

    def __init__(self, options: ForwardOptions, found: Found) -> None:
        self.options, self.number = options, found.number
        self._trained = {k: v for k, v in (found.state.get("provenance") or {}).items() if k in ("version", "commit")}
        self.device = torch.device(choose_device(options.speed.gpu_id, options.speed.cpu, "--gpu_id"))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # else page-locked memory takes some of the first GPU
        if options.speed.amp and not has_fast_bf16(self.device.type):
            warn("--amp: this processor is no faster in bfloat16 than in float32")
        self.tasks = options.tasks.chosen
        self.objects = [task for task in self.tasks if not is_dense(task)]
        self.dense = [task for task in self.tasks if is_dense(task)]
        if self.objects:
            _refuse_unfit(options, self.objects[0])
        self.patch = vec3(options.inputsz)
        self.channels = _input_channels(found.state)
        self.intensity = from_plain(found.state.get("intensity"))
        self.model, self.sizes = self._build(found.state)
        gives, factor = self.sizes.output, self.sizes.factor
        self.fine_patch = vec3(n * f for n, f in zip(self.patch, factor, strict=True))
        self.output = vec3(options.patches.force_crop or self._asked() or gives)
        if any(o > g for o, g in zip(self.output, gives, strict=True)):
            flag = "--force_crop" if options.patches.force_crop else "--outputsz"
            raise InputError(flag, self.output, f"at most {gives}, what the model gives")
        inner = centre_slices(gives, self.output)
        self.front = vec3(f + s.start for f, s in zip(self.sizes.front, inner, strict=True))
        steps = self.sizes.tiling or factor
        edge_to_edge = self.sizes.tiling is not None and "overlap" not in options.typed
        overlap = (0.0, 0.0, 0.0) if edge_to_edge else options.patches.overlap
        self.stride = resolve_stride(self.output, overlap, options.patches.stride, steps, exact=not edge_to_edge)
        self.flips = [Flip.of(k) for k in options.patches.test_aug or ()]
        if factor[1] != factor[2] and any(flip.transpose for flip in self.flips):
            wants = f"flips that do not exchange y and x: the output is finer by {factor}"
            raise InputError("--test_aug", " ".join(map(str, options.patches.test_aug or ())), wants)
        self.edges = edges_by_output(self.dense)
        self.heads = {task.name: task.channels for task in self.dense}
        self.written = written(self.dense)
        if options.patches.variance:
            self.written |= {f"{t.name}{VARIANCE}": Written(t, "variance", t.channels) for t in self.dense}
        self.outputs = {name: one.channels for name, one in self.written.items()}
        self.files = self.outputs | {task.name: 1 for task in self.objects}
        self.dtypes = {name: one.dtype or options.files.out_dtype for name, one in self.written.items()}
        self.classes = {name for name, one in self.written.items() if one.values == "class"}
        self.network = Network(
            self.model,
            self.output,
            self.front,
            options.patches.temperature,
            options.speed.amp,
            self.heads,
            gives,
            activations(self.dense),
            self.sizes.front,
            factor,
        )
        self._cost: Cost | None = None

    def _asked(self) -> Vec3 | None:
        """The output patch of the options. That of training does not hold for networks that give less in eval mode."""
        asked = self.options.network.outputsz
        trained = "outputsz" not in self.options.typed
        return None if trained and evaluates_smaller(self.options.model()) else asked

    @property
    def step(self) -> Vec3:
        """(z, y, x) voxels of the input that patches lie apart, or a whole multiple, so that none leaves a seam."""
        if self.sizes.tiling is None:
            return 1, 1, 1
        return vec3(t // f for t, f in zip(self.sizes.tiling, self.sizes.factor, strict=True))

    @property
    def margin(self) -> tuple[Vec3, Vec3]:
        """Voxels of the input that the network must see in front of its output and behind it."""
        sides = list(zip(self.fine_patch, self.output, self.front, self.sizes.factor, strict=True))
        return vec3(-(-f // n) for _, _, f, n in sides), vec3(-(-(p - o - f) // n) for p, o, f, n in sides)

    def _build(self, state: State) -> tuple[nn.Module, PatchSizes]:
        """The network on the device, and its patches."""
        options, plug_in = self.options, self.options.model()
        asked = self._asked() if crops(plug_in) and not evaluates_smaller(plug_in) else None  # else the scan crops
        sizes = patch_sizes(plug_in, self.patch, asked, evaluating=not options.run.no_eval)
        rows = _rows_of_network(state, self.tasks)
        model = create_network(plug_in, rows, self.channels, sizes)
        where = checkpoint.path_of(options.models, self.number)
        weights = _without_other_heads(state.get("ema") or state["state_dict"], rows)
        if left := checkpoint.load_weights(model, weights, where, matching=options.run.pretrain):
            warn(f"{where}: not in it, or of another shape: {', '.join(left)}")
        model.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # quicker
        quicken(model)
        model.train(options.run.no_eval)
        called: Any = torch.compile(model, dynamic=False) if options.speed.compile else model  # patches have one size
        return called, sizes

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What made the outputs: program, machine, and the checkpoint with its checksum."""
        path = checkpoint.path_of(self.options.models, self.number)
        return provenance(checkpoint=str(path), checkpoint_sha256=checksum(path), trained=self._trained)

    def covered(self, volume: Readable) -> Box:
        """The voxels of a volume that are predicted: what the patches cover, less what is cropped away.

        Raises:
            InputError: less than nothing is left of it.
        """
        whole = self._grid(volume.size).covered.intersect(volume.inside)
        assert whole is not None  # the volume is as large as a patch
        begin, end = whole
        if (border := self.options.patches.crop_border) is not None:
            begin = vec3(b + c // 2 for b, c in zip(begin, border, strict=True))
            end = vec3(e - c // 2 for e, c in zip(end, border, strict=True))
        if (centre := self.options.patches.crop_center) is not None:
            begin = vec3(b + (e - b) // 2 - c // 2 for b, e, c in zip(begin, end, centre, strict=True))
            end = vec3(b + c for b, c in zip(begin, centre, strict=True))
        if any(b >= e or b < f or e > t for b, e, f, t in zip(begin, end, *whole, strict=True)):
            raise InputError(
                "--crop_border, --crop_center", f"{begin} to {end}", f"a part of {whole.begin} to {whole.end}"
            )
        return Box(begin, end)

    def run(
        self, volume: Volume, box: Box, sink: Sink, align: Vec3 = (1, 1, 1), label: str = "forward"
    ) -> dict[str, Any]:
        """Predict a box of a volume into a sink, and return figures about it.

        Raises:
            InputError: memory does not suffice; what would fit is said.
        """
        engine = self._engine(volume.size)
        found = self._cut(engine, volume, box, align, label)
        with Progress(found.patches, box.voxels, label=label) as bar:
            for scan in [engine] if isinstance(engine, Scan) else engine.scans.values():
                scan.done = bar.add
            try:
                stream(engine, found, volume, sink, self.device, self.written)
            except torch.OutOfMemoryError as error:
                raise self._too_little(available(self.device)) from error
        return {
            "voxels": box.voxels,
            "patches": found.patches,
            "columns": len(found.boxes),
            "seconds": round(bar.seconds, 3),
            "voxels_per_s": round(box.voxels / bar.seconds, 1),
            "memory_estimate": found.need,
        }

    def _grid(self, size: Vec3) -> Grid:
        return Grid(size, self.fine_patch, self.output, self.stride, self.front)

    def _scan(self, size: Vec3) -> Scan:
        grid, options = self._grid(size), self.options
        profile = choose_profile(options.patches.blend, options.patches.bump, grid)
        masked = True if options.patches.mask_edges == [] else options.patches.mask_edges  # alone: the outputs' own
        return Scan(
            grid,
            self.network,
            blends(profile, masked, self.heads, self.edges),
            Blend(profile),
            self.device,
            options.speed.batch_size,
            self.heads,
            options.speed.skip_background,
            getattr(torch, options.speed.acc_dtype),
        )

    def _engine(self, size: Vec3) -> Scan | Augmented:
        if not self.flips:
            return self._scan(size)
        return Augmented(self._scan, size, self.flips, self.edges, self.options.patches.variance)

    def patches(self, volume: Volume, box: Box) -> int:
        """Number of patches that a box of a volume takes."""
        return self._engine(volume.size).count(box)

    def patches_tiled(self, volume: Volume, box: Box, tile: Vec3) -> int:
        """Number of patches that a box takes when it is cut into tiles."""
        engine = self._engine(volume.size)
        return (engine if isinstance(engine, Augmented) else engine.grid).count_tiled(box, tile)

    def cost(self, volume: Volume) -> Cost:
        """What takes memory; found by a trial of the network the first time."""
        if self._cost is None:
            try:
                size = (self.options.speed.batch_size, self.channels, *self.fine_patch)
                if self.options.speed.compile:
                    _compile_now(self.network, torch.zeros(size, device=self.device))
                taken = trial(lambda: self.network(torch.zeros(size, device=self.device)), self.device)
            except torch.OutOfMemoryError as error:
                raise self._too_little(available(self.device)) from error
            one = volume.read(Box((0, 0, 0), (1, 1, 1))).dtype.itemsize
            made = sum(volume.channels for volume in self.written.values() if volume.make is not None)  # a byte each
            self._cost = Cost(one * self.channels, 4 * sum(self.heads.values()) + made, taken)
        return self._cost

    def _cut(self, engine: Scan | Augmented, volume: Volume, box: Box, align: Vec3, label: str) -> Cut:
        cost = self.cost(volume)
        limit = (self.options.speed.max_memory or 0) * (1 << 20) or available(self.device)
        grid = self._grid(volume.size)
        found = cut(engine, grid, box, cost, limit, align)
        if found is None:
            raise self._too_little(limit)
        more = found.patches / engine.count(box) - 1
        tell(
            f"{label}: about {in_words(found.need)} of memory (network {in_words(cost.network)}; at most "
            f"{in_words(limit)}), {found.patches:,} patches in {len(found.boxes):,} column{'s'[: len(found.boxes) > 1]}"
            + (f", {more:.1%} of them more than uncut" if more > 0 else "")
        )
        return found

    def _too_little(self, limit: float) -> InputError:
        """What to say when memory does not suffice."""
        network = self._cost.network if self._cost else int(limit)
        wants = largest_that_fits(limit, network, self.options.speed.batch_size, self.patch)
        return InputError("--max_memory", f"{in_words(limit)}, the network alone takes {in_words(network)}", wants)


def _compile_now(network: Network, patches: torch.Tensor) -> None:
    """The first call of a compiled network: the memory that compiling takes is not what the network takes later.

    Raises:
        InputError: it cannot be compiled here, for want of a C++ compiler for example.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        network(patches)
    except TorchDynamoException as error:
        raise InputError(
            "--compile", reason(error), "a compiler such as g++ and a network it takes, or no --compile"
        ) from error


UNFIT = ("test_aug", "mirror", "force_crop", "crop_border", "crop_center")
"""Flags that mean something for blended patches alone."""


def _refuse_unfit(options: ForwardOptions, row: Task) -> None:
    """Refuse what cannot be done with objects.

    Raises:
        InputError: a flag of blended patches, or volumes behind cloud-volume.
    """
    for name in UNFIT:
        if getattr(options.patches, name):
            raise InputError(f"--{name}", f"together with --{row.flag}", "one of them: objects are not blended")
    if options.cloud.gs_input or options.cloud.gs_output or options.batch.dummy:
        wants = "--test_ids without --gs_output: objects of files, into files"
        raise InputError("--gs_input, --gs_output, --dummy", f"together with --{row.flag}", wants)


def _rows_of_network(state: State, chosen: Sequence[Task]) -> Sequence[Task]:
    """The heads to build: those asked for; all that were trained where a network has objects among its outputs."""
    options = state.get("options") or {}
    trained = task_options(stored_rows(state), options).weights
    rows = [task for task in stored_rows(state) if trained.get(task.flag)]
    if all(is_dense(task) for task in rows):
        return chosen
    return task_options(stored_rows(state), options).chosen


def _without_other_heads(weights: Mapping[str, Any], chosen: Sequence[Task]) -> dict[str, Any]:
    """The weights less those of heads that are known tasks but not asked for."""
    others = {task.name for task in TASKS} - {task.name for task in chosen}
    return {
        key: value for key, value in weights.items() if not (key.startswith("out.") and key.split(".")[1] in others)
    }


def _input_channels(state: State) -> int:
    """Channels of the image: as in training, else those of the public network's first convolution, else one."""
    if spec := state.get("spec"):
        return int(spec[0]["input"][0])
    first = state.get("state_dict", {}).get("in.conv.weight")
    return 1 if first is None else int(first.shape[1])
