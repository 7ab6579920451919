"""Cut a segmentation into tasks: the part of `deepem.blocks` that is specific to segmentation.

::

    blocks      a task per block     probabilities -> labels and a record
    graph       one task             all records -> regions, graph, merge tree, ids at every threshold
    segments    a task per block     labels -> segments in the label volumes
    levels      one task             coarser levels of the label volumes

The folder of the plan holds the intermediate results. A repeated task writes the same bytes again.
"""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.blocks.folder import Folder
from deepem.blocks.plan import FILE, Phase, Plan
from deepem.blocks.programs import Effort
from deepem.io.label_volume import LabelVolume, add_levels, label_volume, require_place, shared
from deepem.segment.channels import level
from deepem.segment.join import Regions, join
from deepem.segment.label import Read, label_block
from deepem.segment.parts import Parts
from deepem.segment.relabel import oversized, relabel_block
from deepem.segment.select import group, grow_tree, segment_ids
from deepem.segment.tree import edge_list
from deepem.tools.segment_inputs import BLOCK, Opened, fingerprint, opened
from deepem.tools.segment_options import SegmentOptions, read_words
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Tiles, Vec3, vec3
from deepem.utils.main_memory import free_memory

MACHINE = "processor"
BYTES_PER_EDGE = 400
MERGE_TREE = ("agglomerate",)
FRAGMENTS = "fragments"
"""Key of the fragments among the outputs."""


def make_plan(folder: str, words: Sequence[str], task_size: Vec3) -> Plan:
    """Cut a segmentation into tasks of about `task_size` (z, y, x) for many machines.

    Raises:
        InputError: the words cannot be used, or name an output that only a single process can write.
    """
    files, own = read_words(words)
    for flag in ("work", "again", "threads"):
        if getattr(own, flag):
            raise InputError(f"--{flag}", "a plan", "no such flag: the folder of the plan keeps what is needed")
    for path in own.outputs.values():
        if not shared(path):
            raise InputError("--out", path, "a zarr or precomputed volume: several processes write into it")
    Folder(folder).refuse_unless_new(FILE)
    with opened(files, own, task_size) as volumes:
        for path in outputs(own).values():
            require_place(path, volumes.layout)
        return written_plan(folder, words, files, own, volumes)


def written_plan(folder: str, words: Sequence[str], files: Sequence[str], own: SegmentOptions, volumes: Opened) -> Plan:
    """Write the plan of a segmentation."""
    boxes = Tiles(volumes.plan.volume, volumes.plan.block)
    whole = Tiles(volumes.plan.volume, volumes.plan.volume.size)
    settings = {
        "words": list(words), "block": volumes.plan.block, "inputs": fingerprint(inputs(files, own)),
    }  # fmt: skip
    phases = [Phase("blocks", boxes), Phase("graph", whole), Phase("segments", boxes), Phase("levels", whole)]
    return Plan.create(folder, "segment", settings, phases)


def inputs(files: Sequence[str], own: SegmentOptions) -> list[str]:
    """All input files."""
    return [*files, *(own.mask or ()), *(own.exclude or ())]


def outputs(own: SegmentOptions) -> dict[str, str]:
    """The label volumes to write: one for each threshold, and the fragments if requested."""
    found = own.outputs
    if own.proofread is None:
        return found
    folder = own.proofread if "://" in own.proofread else f"file://{Path(own.proofread).resolve()}"
    return found | {FRAGMENTS: f"{folder.rstrip('/')}/{FRAGMENTS}"}


def open_tasks(plan: Plan) -> SegmentTasks:
    """The volumes of a plan."""
    files, own = read_words(plan.settings["words"])
    if fingerprint(inputs(files, own)) != plan.settings["inputs"]:
        raise InputError(plan.folder, "a plan for other files: the inputs have changed since", "a new plan")
    stack = ExitStack()
    volumes = stack.enter_context(opened(files, own, vec3(plan.settings["block"]), quiet=True))
    return SegmentTasks(own, volumes, Parts(Folder(plan.folder), volumes.plan), stack)


def effort(plan: Plan) -> Effort:
    """Return what a plan costs; each block counts as a patch."""
    boxes = plan.phases[0].boxes
    return Effort(boxes.whole.voxels, len(boxes), len(boxes))


def rate(plan: Plan) -> float:
    """Measure voxels per second of one thread on a block in the middle; relabelling is assumed to double the time."""
    tasks = open_tasks(plan)
    volume = tasks.volumes.plan.volume
    box = Box.of_size(*zip(*((max((n - b) // 2, 0), min(n, b)) for n, b in zip(volume.size, BLOCK, strict=True)),
                           strict=True))  # fmt: skip
    begun = time.perf_counter()
    label_block(tasks.volumes.plan, box, tasks.volumes.probabilities.read, tasks.read_mask)
    return box.voxels / max(time.perf_counter() - begun, 1e-6) / 2


def _nobody(line: str) -> None:
    """Discard a line."""


@dataclass
class SegmentTasks:
    """Runs the tasks of a plan; volumes and regions stay open from task to task.

    Attributes:
        own: The options.
        volumes: Inputs and the layout of the outputs.
        parts: Folder of intermediate results.
        stack: Closes the opened volumes.
        tell: Called with a line of progress.
    """

    own: SegmentOptions
    volumes: Opened
    parts: Parts
    stack: ExitStack
    tell: Callable[[str], None] = _nobody

    def do(self, phase: str, box: Box, label: str) -> dict[str, Any]:
        """Do the task of a box and return the checksums of its outputs."""
        does = {"blocks": self.label, "graph": self.graph, "segments": self.segment, "levels": self.levels}
        return does[phase](box)

    def holds(self, phase: str, marker: Mapping[str, Any]) -> bool:
        """Whether the outputs of a task still match its marker."""
        try:
            return self.parts.holds(marker.get("files", ())) and all(
                _crc(self.label_volumes[name].read(Box(vec3(begin), vec3(end)))) == crc
                for name, begin, end, crc in marker.get("blocks", ())
            )
        except InputError:  # an unreadable output counts as damaged
            return False

    def label(self, box: Box) -> dict[str, Any]:
        """Label a block."""
        plan = self.volumes.plan
        labels, record = label_block(plan, box, self.volumes.probabilities.read, self.read_mask)
        return _marker(files=self.parts.put_block(plan.index(box), labels, record))

    def graph(self, box: Box) -> dict[str, Any]:
        """Merge all blocks, and find the segments at every threshold.

        Raises:
            InputError: the region graph does not fit into memory.
        """
        regions = join(self.volumes.plan, self.parts.record, free_memory() // BYTES_PER_EDGE)
        return _marker(files=[*self.parts.put_regions(regions), *self.solve(regions)])

    def solve(self, regions: Regions) -> list[tuple[str, int]]:
        """Find the segments at every threshold, store the segment of each region, and return the files' checksums."""
        plan, own = self.volumes.plan, self.own
        tree, files = None, []
        if plan.decoder in MERGE_TREE:
            lowest = min(own.threshold)
            held = self.parts.tree()
            tree = held if held is not None and held.floor <= level(lowest) else grow_tree(regions, lowest)
            files += self.parts.put_tree(tree)
        for name, threshold in zip(own.outputs, own.threshold, strict=True):
            groups = group(plan, regions, threshold, tree)
            ids = segment_ids(plan, regions, groups, min_size=own.min_size, join_smaller=own.join_smaller)
            files += self.parts.put_ids(name, ids)
            segments = len(np.unique(ids[ids > 0]))
            self.tell(
                f"threshold {name}: {segments:,} {'seeds' if plan.min_seed else 'segments'} of {len(ids):,} regions"
            )
        if own.proofread is not None:
            files += self.parts.put_ids(FRAGMENTS, regions.ids)
            self._put_edges(edge_list(regions.near, regions.ids))
        if not plan.local and (large := int(oversized(plan, regions).sum())):
            self.tell(f"{large:,} objects are longer than --halo: around them the result depends on --block")
        return files

    def _put_edges(self, edges: NDArray[Any]) -> None:
        folder = Folder(str(self.own.proofread))
        buffer = io.BytesIO()
        np.save(buffer, edges)
        folder.put("edges.npy", buffer.getvalue())

    def segment(self, box: Box) -> dict[str, Any]:
        """Write a block of all label volumes, and read it back."""
        plan, found = self.volumes.plan, []
        area = plan.sees(box)
        labels = self.parts.labels(area)

        def read_labels(wanted: Box) -> NDArray[Any]:
            return labels[wanted.shift(-b for b in area.begin).slices()]

        for name, volume in self.label_volumes.items():
            ids = relabel_block(
                plan, box, self.regions, self.ids[name], read_labels, self.volumes.probabilities.read, self.read_mask
            )
            volume.write(box, ids)
            if self.checked:
                crc = _crc(ids)
                if _crc(volume.read(box)) != crc:
                    raise OSError(
                        f"{outputs(self.own)[name]}: voxels {box.begin} to {box.end} are not what was written"
                    )
                found.append((name, box.begin, box.end, crc))
        return _marker(blocks=found)

    def levels(self, box: Box) -> dict[str, Any]:
        """Add the coarser levels of the label volumes."""
        for path in outputs(self.own).values():
            add_levels(path)
        return _marker()

    @property
    def read_mask(self) -> Read | None:
        """Return a reader of the mask, if there is one."""
        return None if self.volumes.inside is None else self.volumes.inside.read

    @cached_property
    def checked(self) -> bool:
        """Whether other processes can read the outputs before they are complete."""
        return all(shared(path) for path in outputs(self.own).values())

    @cached_property
    def regions(self) -> Regions:
        """The regions of the volume, without the graph."""
        return self.parts.regions()

    @cached_property
    def ids(self) -> dict[str, NDArray[np.uint64]]:
        """The segment of each region, by output."""
        return {name: self.parts.ids(name) for name in outputs(self.own)}

    @cached_property
    def label_volumes(self) -> dict[str, LabelVolume]:
        """The opened outputs."""
        own, found = self.own, {}
        for name, path in outputs(own).items():
            about = {"decoder": own.decoder, "segments": "fragments" if name == FRAGMENTS else f"threshold {name}"}
            layout = replace(self.volumes.layout, attributes={**self.volumes.layout.attributes, **about})
            found[name] = self.stack.enter_context(label_volume(path, layout))
        return found


def _marker(
    *, files: Sequence[tuple[str, int]] = (), blocks: Sequence[tuple[str, Vec3, Vec3, int]] = ()
) -> dict[str, Any]:
    """The contents of a marker: files of the plan's folder and blocks of label volumes, with their checksums."""
    return {"files": list(files), "blocks": list(blocks)}


def _crc(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)
