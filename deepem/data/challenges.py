"""Public challenges: their volumes, labels, voxel sizes and sources.

The names of the files that a challenge distributes differ between mirrors and years, so they are not listed here.
``deepem prepare NAME`` converts such files into the folders that the dataset modules read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.data.readers import LoadData
from deepem.data.table import Row

MASKS = ("msk_train", "msk_val")


@dataclass(frozen=True)
class Challenge:
    """A public challenge.

    Attributes:
        title: What the images show.
        labels: Id -> labels of that volume, separated by blanks; empty for a test volume. If a challenge has a single
            volume, the volume lies in the challenge's own folder, under its name.
        voxel_size_nm: (z, y, x), or None if the volumes differ.
        source: Where to get the data.
        inverted: Labels whose files are 0 at the label and non-zero elsewhere.
        alike: Label -> another label whose file it shares.
    """

    title: str
    labels: Mapping[str, str]
    voxel_size_nm: tuple[float, float, float] | None
    source: str
    inverted: tuple[str, ...] = ()
    alike: Mapping[str, str] | None = None

    def table(self, name: str) -> dict[str, Row]:
        """Return the table of files: one folder per volume, with one file per label and the masks of both phases."""
        folders = {id: name if id == name else f"{name}/{id}" for id in self.labels}
        return {id: self._row(folders[id], words.split()) for id, words in self.labels.items()}

    def _row(self, folder: str, labels: list[str]) -> Row:
        masks = MASKS if labels else ()
        files = {key: f"{key}.h5" for key in ("img", *labels, *masks)}
        files |= {key: f"{of}.h5" for key, of in (self.alike or {}).items() if of in labels}
        return {"dir": folder, **files, "loc": bool(labels)}


CHALLENGES: dict[str, Challenge] = {
    "snemi3d": Challenge(
        "mouse cortex, neuron ids; the train and test volumes of the challenge SNEMI3D (ISBI 2013)",
        {"train": "seg", "test": ""},
        (30, 6, 6),
        "Kasthuri et al. 2015, https://doi.org/10.1016/j.cell.2015.06.054",
    ),
    "isbi2012": Challenge(
        "ventral nerve cord of a fly larva, membranes; the train and test stacks of the challenge of ISBI 2012",
        {"train": "bdr", "test": ""},
        (50, 4, 4),
        "Arganda-Carreras et al. 2015, https://doi.org/10.3389/fnana.2015.00142",
        inverted=("bdr",),
    ),
    "lucchi": Challenge(
        "hippocampus, mitochondria; the two annotated volumes of Lucchi et al.",
        {"train": "mit", "test": "mit"},
        (5, 5, 5),
        "Lucchi et al. 2012, https://doi.org/10.1109/TMI.2011.2171705",
    ),
    "mitoem": Challenge(
        "cortex of human and rat, instances of mitochondria",
        {"human_train": "mit", "human_val": "mit", "rat_train": "mit", "rat_val": "mit"},
        (30, 8, 8),
        "Wei et al. 2020, https://doi.org/10.1007/978-3-030-59722-1_7",
        alike={"seg": "mit"},
    ),
    "nucmm": Challenge(
        "whole brain of a zebrafish (EM) and part of that of a mouse (micro-CT), instances of nuclei",
        {"zebrafish_train": "seg", "zebrafish_val": "seg", "mouse_train": "seg", "mouse_val": "seg"},
        None,
        "Lin et al. 2021, https://doi.org/10.1007/978-3-030-87193-2_16",
    ),
    "fib25": Challenge(
        "medulla of a fly (FIB-SEM), neuron ids; any cut-out of FlyEM's FIB-25",
        {"fib25": "seg"},
        (10, 10, 10),
        "Takemura et al. 2015, https://doi.org/10.1073/pnas.1509820112",
    ),
}


def named(table: Mapping[str, Row], files: Mapping[str, str] | None) -> dict[str, Row]:
    """Return the rows with other file names, such as ``{"img": "input.tif"}``."""
    return {
        id: {**row, **{key: name for key, name in (files or {}).items() if key in row}} for id, row in table.items()
    }


def remedy(name: str) -> str:
    """Return the advice for users who lack a challenge's files."""
    return f"that folder filled by 'deepem prepare {name}', or the names that its files have, as the flag files"


def challenge_reader(name: str) -> LoadData:
    """Return the `load_data` of a challenge. Its masks may be missing."""

    def load_data(
        data_dir: Path | str,
        data_ids: Sequence[str] | None = None,
        *,
        class_keys: Sequence[str] = (),
        labels: Sequence[str] = (),
        lazy: bool = False,
        files: dict[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """Load volumes by id: the image, the requested labels that exist, and the masks.

        Args:
            data_dir: The folder of the datasets.
            data_ids: Ids, by default all.
            class_keys: Not used.
            labels: Label keys.
            lazy: Leave the arrays on disk.
            files: names of files in the folder of each volume, such as img=raw.tif seg=labels.tif
        """
        from deepem.data.emio import load_files

        table = named(CHALLENGES[name].table(name), files)
        return load_files(table, data_dir, data_ids, labels, optional=MASKS, remedy=remedy(name), lazy=lazy)

    return load_data
