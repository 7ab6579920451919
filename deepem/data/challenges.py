"""Public challenges: the volumes of each, their labels, and what is known of them.

Which files a challenge hands out, and under which names, differs between mirrors and years, and is not written down
here. ``deepem prepare NAME`` makes of them the folders that the dataset modules read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepem.data.table import Row

MASKS = ("msk_train", "msk_val")


@dataclass(frozen=True)
class Challenge:
    """A public challenge.

    Attributes:
        title: What it shows.
        labels: Id -> the labels of that volume, in words; none for a volume to test on. A challenge of one volume has
            it in its own folder, under its own name.
        voxel_size_nm: (z, y, x), or None where its volumes differ.
        source: Where it comes from.
        inverted: Labels whose files are 0 where the label is.
        alike: Label -> the label whose file it is too.
    """

    title: str
    labels: Mapping[str, str]
    voxel_size_nm: tuple[float, float, float] | None
    source: str
    inverted: tuple[str, ...] = ()
    alike: Mapping[str, str] | None = None

    def table(self, name: str) -> dict[str, Row]:
        """Its rows: a folder for each volume, with a file for each label and the masks of the two phases."""
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
    """The rows with other names of files: ``{"img": "input.tif"}``."""
    return {
        id: {**row, **{key: name for key, name in (files or {}).items() if key in row}} for id, row in table.items()
    }


def remedy(name: str) -> str:
    """What a user who lacks the files of a challenge is told."""
    return f"that folder filled by 'deepem prepare {name}', or the names that its files have, as the flag files"


def load(
    name: str, data_dir: Any, data_ids: Any, labels: Any, files: Mapping[str, str] | None, lazy: bool = False
) -> dict[str, Any]:
    """The volumes of a challenge; masks may be absent."""
    from deepem.data.emio import load_files

    table = named(CHALLENGES[name].table(name), files)
    return load_files(table, data_dir, data_ids, labels, optional=MASKS, remedy=remedy(name), lazy=lazy)
