"""A trained network with everything needed to slide it over volumes, one after the other."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import torch
from torch import nn

from deepem.build.device import choose_device, has_fast_bf16
from deepem.build.network import PatchSizes, create_network, crops, evaluates_smaller, patch_sizes
from deepem.cli.forward_parser import Found
from deepem.cli.forwarding import ForwardOptions
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
from deepem.test.compiling import compile_now
from deepem.test.kinds import Written, written
from deepem.test.stored_network import input_channels, refuse_unfit, rows_of_network, without_other_heads
from deepem.test.stream import Sink, largest_that_fits, stream
from deepem.utils import checkpoint
from deepem.utils.checkpoint import State
from deepem.utils.convolution import quicken
from deepem.utils.crop import centre_slices
from deepem.utils.errors import InputError, warn
from deepem.utils.geometry import Box, Vec3, vec3
from deepem.utils.intensity import from_plain
from deepem.utils.main_memory import in_words
from deepem.utils.provenance import checksum, provenance


class Readable(Volume, Protocol):
    """A volume in voxels of the output, of which only a part may be predicted."""

    inside: Box


class Job:
    """A trained network and the settings for sliding it over volumes.

    Attributes:
        tasks: The rows of the tasks to predict.
        objects: The tasks whose output is a list of objects. The attributes below describe the other tasks.
        sizes: The patches of the network.
        patch: The input patch, (z, y, x).
        fine_patch: The input patch in voxels of the output, the scan's unit.
        output: The output patch.
        front: Voxels between the front of the patch and the front of its output, cropped as in training.
        channels: Channels of the image.
        intensity: The grey values that become 0 and 1; None for uint8 and for floats in [0, 1].
        heads: Number of channels by name of the network's output.
        written: The volumes to write by name, variances included.
        outputs: Number of channels by name of the volume to write.
        files: The same, with the volumes of objects.
        dtypes: Data type by name of the volume to write.
        classes: Names of the volumes that hold classes.
    """

    def __init__(self, options: ForwardOptions, found: Found) -> None:
        self.options, self.number = options, found.number
        trained = found.state.get("provenance") or {}
        self._trained = {name: trained[name] for name in ("version", "commit", "seed") if name in trained}
        self.device = torch.device(choose_device(options.speed.gpu_id, options.speed.cpu, "--gpu_id"))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # otherwise pinned memory takes some of the first GPU
        if options.speed.amp and not has_fast_bf16(self.device.type):
            warn("--amp: this processor is no faster in bfloat16 than in float32")
        self.tasks = options.tasks.chosen
        self.objects = [task for task in self.tasks if not is_dense(task)]
        self.dense = [task for task in self.tasks if is_dense(task)]
        if self.objects:
            refuse_unfit(options, self.objects[0])
        self.patch = vec3(options.inputsz)
        self.channels = input_channels(found.state)
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
        """The output patch of the options; that of training is ignored for networks with a smaller output in eval."""
        asked = self.options.network.outputsz
        trained = "outputsz" not in self.options.typed
        return None if trained and evaluates_smaller(self.options.model()) else asked

    @property
    def step(self) -> Vec3:
        """Stride that avoids seams, (z, y, x) voxels of the input; patches lie this or a multiple of it apart."""
        if self.sizes.tiling is None:
            return 1, 1, 1
        return vec3(t // f for t, f in zip(self.sizes.tiling, self.sizes.factor, strict=True))

    @property
    def margin(self) -> tuple[Vec3, Vec3]:
        """Voxels of input context that the network needs in front of and behind its output."""
        sides = list(zip(self.fine_patch, self.output, self.front, self.sizes.factor, strict=True))
        return vec3(-(-f // n) for _, _, f, n in sides), vec3(-(-(p - o - f) // n) for p, o, f, n in sides)

    def _build(self, state: State) -> tuple[nn.Module, PatchSizes]:
        """Return the network on the device, with its patch sizes."""
        options, plug_in = self.options, self.options.model()
        asked = self._asked() if crops(plug_in) and not evaluates_smaller(plug_in) else None  # otherwise the scan crops
        sizes = patch_sizes(plug_in, self.patch, asked, evaluating=not options.run.no_eval)
        rows = rows_of_network(state, self.tasks)
        model = create_network(plug_in, rows, self.channels, sizes)
        where = checkpoint.path_of(options.models, self.number)
        weights = without_other_heads(checkpoint.weights_of(state, where), rows)
        if left := checkpoint.load_weights(model, weights, where, matching=options.run.pretrain):
            warn(f"{where}: not in it, or of another shape: {', '.join(left)}")
        model.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # quicker
        quicken(model)
        if hasattr(model, "paste_masks"):
            model.paste_masks = False  # type: ignore[assignment]  # no output needs masks as large as a patch
        model.train(options.run.no_eval)
        called: Any = torch.compile(model, dynamic=False) if options.speed.compile else model  # patches share one size
        return called, sizes

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Return what made the outputs: program, machine, and the checkpoint with its checksum."""
        path = checkpoint.path_of(self.options.models, self.number)
        return provenance(checkpoint=str(path), checkpoint_sha256=checksum(path), trained=self._trained)

    def covered(self, volume: Readable) -> Box:
        """Return the box of a volume to predict: what the patches cover, minus --crop_border or --crop_center.

        Raises:
            InputError: the crop leaves nothing.
        """
        whole = self._grid(volume.size).covered.intersect(volume.inside)
        assert whole is not None  # the volume holds at least one patch
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
        """Predict a box of a volume into a sink, and return figures such as the number of patches and the speed.

        Raises:
            InputError: memory is too small; the message says what would fit.
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
        masked = True if options.patches.mask_edges == [] else options.patches.mask_edges  # [] means the outputs' own
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
        """Return the number of patches that cover a box of a volume."""
        return self._engine(volume.size).count(box)

    def patches_tiled(self, volume: Volume, box: Box, tile: Vec3) -> int:
        """Return the number of patches that cover a box when it is cut into tiles."""
        engine = self._engine(volume.size)
        return (engine if isinstance(engine, Augmented) else engine.grid).count_tiled(box, tile)

    def cost(self, volume: Volume) -> Cost:
        """Return the memory needs, measured in a trial of the network at the first call."""
        if self._cost is None:
            try:
                size = (self.options.speed.batch_size, self.channels, *self.fine_patch)
                if self.options.speed.compile:
                    compile_now(self.network, torch.zeros(size, device=self.device))
                taken = trial(lambda: self.network(torch.zeros(size, device=self.device)), self.device)
            except torch.OutOfMemoryError as error:
                raise self._too_little(available(self.device)) from error
            one = volume.read(Box((0, 0, 0), (1, 1, 1))).dtype.itemsize
            made = sum(volume.channels for volume in self.written.values() if volume.make is not None)  # 1 byte each
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
        """Return the error to raise when memory is too small."""
        network = self._cost.network if self._cost else int(limit)
        wants = largest_that_fits(limit, network, self.options.speed.batch_size, self.patch)
        return InputError("--max_memory", f"{in_words(limit)}, the network alone takes {in_words(network)}", wants)
