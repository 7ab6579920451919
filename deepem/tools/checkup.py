"""Check the volumes of a run, for `deepem check`."""

from __future__ import annotations

import contextlib
import io
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepem import tasks
from deepem.build import selection, volumes
from deepem.build.network import create_network, patch_sizes
from deepem.build.samplers import create_samplers
from deepem.cli.training import TrainOptions
from deepem.data.examine import volume as look
from deepem.data.examine.finding import Finding
from deepem.data.examine.image import differences, tiles_of
from deepem.data.kinds import KINDS, id_labels
from deepem.data.volume import compact
from deepem.data.worker import generator
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

RARE = 0.1
"""Suggest class balancing if the share of cut edges or positive voxels is lower than this."""

TRIAL_S = 2.0
ANISOTROPIC = 3.0


@dataclass
class Report:
    """What was checked, what is wrong with it, and what to expect of a run."""

    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    expected: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        found = [one.plain() for one in self.findings]
        return {"volumes": self.volumes, "findings": found, "notes": self.notes, "expected": self.expected}


def examine(options: TrainOptions) -> Report:
    """Check everything that a run with these options would read.

    Raises:
        InputError: the flags or files cannot be used at all.
    """
    report, chosen = Report(), options.tasks.chosen
    data = options.data
    sets = [selection.DataSet(options.plug_in("dataset", word)) for word in data.data or ()]
    train, val = selection.choose_ids(sets, data.train_ids, data.val_ids)
    with _warnings(report):
        loaded = volumes.load([*train, *val], Path(data.data_dir), chosen, lazy=True)
    labels, ids = tasks.labels(chosen), id_labels(options.tasks.rows)
    for name, leaf in _leaves(loaded):
        if leaf.get("img") is None:
            raise InputError(name, f"the keys {', '.join(map(str, leaf))}", "an image under the key img")
        report.findings += [one.at(f"{name} {one.where}") for one in look.volume_findings(leaf, labels, ids)]
        _describe(report, name, leaf, labels, ids)
    report.findings += _between(report, loaded, [ref.word for ref in train], [ref.word for ref in val])
    report.findings += _never_there(loaded, [ref.word for ref in train], chosen, ids)
    for phase, refs in (("train", train), ("val", val)):
        report.findings += _refused(report, {ref.word: loaded[ref.word] for ref in refs}, labels, phase, options)
    if not report.findings:
        _expect(report, options)
    return report


def _leaves(loaded: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, volume in loaded.items():
        inner = volumes.leaves(volume)
        yield from ((name if len(inner) == 1 else f"{name}/{i}", leaf) for i, leaf in enumerate(inner))


@contextlib.contextmanager
def _warnings(report: Report) -> Iterator[None]:
    """Collect warnings as notes of the report."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            yield
    finally:
        lines = (
            line.removeprefix("warning: ") for line in told.getvalue().splitlines() if line.startswith("warning: ")
        )
        report.notes += [
            line for line in dict.fromkeys(lines) if not line.startswith("--lazy") and line not in report.notes
        ]


def _describe(report: Report, name: str, leaf: Mapping[str, Any], labels: Sequence[str], ids: frozenset[str]) -> None:
    """Return shapes, types, voxel size, and the share of positive voxels or cut edges."""
    image, size = look.part_of(leaf["img"]), look.voxel_size_of(leaf["img"])
    about: dict[str, Any] = {"shape": list(leaf["img"].shape), "type": str(leaf["img"].dtype), "voxel_size_nm": size}
    if image.dtype.kind in "biuf" and np.isfinite(image).all():
        z, y, x = differences(tiles_of(image).astype(np.float32))
        about["z differs"] = round(z / max((y + x) / 2, 1e-9), 2)
        about["grey"] = [float(n) for n in np.percentile(image[:, ::2, ::2], (1, 50, 99))]
    about["labels"] = {}
    for key in labels:
        if leaf.get(key) is None:
            continue
        label = look.part_of(leaf[key])
        mine: dict[str, Any] = {"shape": list(leaf[key].shape), "type": str(leaf[key].dtype)}
        if key in ids and label.dtype.kind in "biu":
            cut = float(np.mean(label[:, :, 1:] != label[:, :, :-1]))
            mine |= {
                "ids": len(np.unique(label)),
                "cut": round(cut, 4),
                "labelled": round(float((label > 0).mean()), 4),
            }
        else:
            mine["positive"] = round(float((label > 0).mean()), 5)
        about["labels"][key] = mine
    report.volumes[name] = about
    first = next((key for key in labels if leaf.get(key) is not None), None)
    report.pictures[name] = image, None if first is None else look.part_of(leaf[first])


def _between(report: Report, loaded: Mapping[str, Any], train: Sequence[str], val: Sequence[str]) -> list[Finding]:
    misplaced = {one.where.rpartition(" ")[0] for one in report.findings if one.code in look.MISPLACED}
    pairs = {name: (image, None if name in misplaced else label) for name, (image, label) in report.pictures.items()}
    found = look.between({name: pair for name, pair in pairs.items() if np.isfinite(pair[0]).all()})
    for one, other in itertools.product(train, val):
        both = [volumes.leaves(loaded[word]) for word in (one, other)]
        if one == other and all({"msk_train", "msk_val"} <= set(leaf) for leaf in both[0]):
            continue
        if one == other or any(look.overlapping(a["img"], b["img"]) for a, b in itertools.product(*both)):
            what = "it holds voxels that are trained on" if one == other else f"it shares voxels with {one}"
            remedy = "ids without common voxels, or msk_train and msk_val"
            found.append(Finding("train and val overlap", what, remedy, other))
    return found


def _never_there(
    loaded: Mapping[str, Any], train: Sequence[str], chosen: Sequence[tasks.Task], ids: frozenset[str]
) -> list[Finding]:
    """Note the classes that no training volume has."""
    found = []
    for task in chosen:
        leaves = [leaf for word in train for leaf in volumes.leaves(loaded[word]) if leaf.get(task.source) is not None]
        if task.source in ids or not leaves:
            continue
        parts = [look.part_of(leaf[task.source]) for leaf in leaves]
        apart = KINDS[task.kind].channels(task.channels) > 1 and all(
            len(leaf[task.source].shape) == 3 for leaf in leaves
        )
        wanted = range(1, task.channels + 1) if apart else [None]
        for number in wanted:
            if not any(bool((part == number).any() if number else part.any()) for part in parts):
                what = f"the class {number} is" if number else "a positive voxel is"
                remedy = "other volumes, or train without this task"
                found.append(Finding("class never there", f"{what} in no training volume", remedy, f"--{task.flag}"))
    return found


def _refused(
    report: Report, loaded: Mapping[str, Any], labels: Sequence[str], phase: str, options: TrainOptions
) -> list[Finding]:
    """Add the errors that training would raise, unless the report already has them."""
    found = []
    for name, volume in loaded.items():
        try:
            with _warnings(report):
                compact(name, volume, labels, phase, options.tasks.chosen)
        except InputError as error:
            if not any(error.where.startswith(one.where) for one in report.findings if one.where):
                found.append(Finding("refused", f"got {error.got}", f"{error.wants}{_intensity(report, name, error)}",
                                     error.where))  # fmt: skip
    return found


def _intensity(report: Report, name: str, error: InputError) -> str:
    grey = report.volumes.get(name, {}).get("grey")
    return f"; --intensity {grey[0]:g},{grey[2]:g} would fit" if grey and "grey values" in error.got else ""


def _expect(report: Report, options: TrainOptions) -> None:
    """Report memory, speed, the largest patch, and whether the network's pooling suits the voxel size."""
    chosen = options.tasks.chosen
    sizes = patch_sizes(options.model(), options.inputsz, options.network.outputsz)
    with _warnings(report):
        try:
            samplers = create_samplers(options, chosen, sizes)
            network = create_network(options.model(), chosen, samplers.channels, sizes, seed=0)
        except InputError as error:
            report.findings.append(Finding("refused", f"got {error.got}", error.wants, error.where))
            return
    begun, count = time.monotonic(), 0
    while time.monotonic() - begun < TRIAL_S and count < 200:
        samplers.train(generator(options.run.seed, "train", count))
        count += 1
    shapes = [about["shape"][-3:] for about in report.volumes.values()]
    held = sum(int(np.prod(about["shape"])) * (1 + 4 * len(about["labels"])) for about in report.volumes.values())
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    report.expected = {
        "samples_per_s": round(count / (time.monotonic() - begun), 1),
        "memory_mb": round(held / 2**20),
        "checkpoint_mb": round(3 * weights / 2**20, 1),
        "largest_patch": [min(axis) for axis in zip(*shapes, strict=True)],
    }
    first = _first_pooling(network)
    sizes_nm = [about["voxel_size_nm"] for about in report.volumes.values() if about["voxel_size_nm"]]
    if first is not None and sizes_nm:
        ratio = max(size[0] / ((size[1] + size[2]) / 2) for size in sizes_nm)
        if ratio >= ANISOTROPIC and first[0] > 1:
            what = f"the first pooling is {first} (z, y, x), but voxels are {ratio:.1f} times as long along z"
            report.findings.append(Finding("pooling", what, "a model that pools y and x first", "--model"))
    elif first is not None:
        report.notes.append("voxel size: no file tells it, so whether the network's pooling fits cannot be told")
    rare = [
        key for about in report.volumes.values() for key, one in about["labels"].items() if one.get("cut", 1) < RARE
    ]
    if rare and not options.loss.class_balancing:
        report.notes.append(f"less than {RARE:.0%} of the edges of {rare[0]} are cut: --class_balancing weighs them up")


def _first_pooling(network: Any) -> Vec3 | None:
    """Return the factor by which a network first lowers the resolution."""
    for module in network.modules():
        stride = getattr(module, "stride", None)
        if stride is None or "Transpose" in type(module).__name__ or "Upsample" in type(module).__name__:
            continue
        factor = (stride,) * 3 if isinstance(stride, int) else tuple(stride)
        if len(factor) == 3 and max(factor) > 1:
            return vec3(factor)
    return None
