"""The crop index: a table of all crops of a folder of volumes, and of the objects in each, in SQLite or PostgreSQL.

The folder is scanned once, and again if a file or a setting has changed. One file or database can hold the indexes of
several folders and crop sizes::

    indexes(id, key, stamp)                              the settings, and the state of the files when scanned
    crops(id, index, place, volume, z, y, x, channel, objects)
    objects(crop, object, label, z1, y1, x1, z2, y2, x2, voxels)      boxes in voxels of the crop
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data import crop_database as database
from deepem.data.labelled_folder import IMAGE, LABEL, Entry
from deepem.io.files import opened
from deepem.utils.frames import boxes_of
from deepem.utils.geometry import Box, Vec3, vec3

Array = NDArray[Any]


@dataclass(frozen=True)
class Wanted:
    """The settings of an index.

    Attributes:
        folder: The folder of volumes.
        names: Names of the volumes.
        crop: Size of a crop, (z, y, x).
        stride: Distance between neighbouring crops; the last crops end with the volume.
        min_voxels: Objects with fewer voxels in a crop are left out of that crop.
        min_objects: Crops with fewer objects are left out.
        each_channel: Make a separate crop of each channel instead of one crop of all channels.
    """

    folder: str
    names: tuple[str, ...]
    crop: Vec3
    stride: Vec3
    min_voxels: int = 1
    min_objects: int = 1
    each_channel: bool = False

    @property
    def key(self) -> str:
        """The key of the index in the database."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()

    @property
    def stamp(self) -> str:
        """The state of the files; a different size or time means that a file has changed."""
        return hashlib.sha256(json.dumps([_stamp(file) for file in self._files()]).encode()).hexdigest()

    def _files(self) -> Iterator[Path]:
        for name in self.names:
            entry = Entry(Path(self.folder), name)
            label = entry.need(LABEL)
            yield from (entry.need(IMAGE), label)
            yield label.with_name(f"{label.name.removesuffix(label.suffix)}.classes.json")


def _stamp(file: Path) -> list[Any]:
    """Return the size and time of a file, or of all files in a folder such as a zarr; empty if it does not exist."""
    files = sorted(file.rglob("*")) if file.is_dir() else [file] if file.exists() else []
    return [[str(one.relative_to(file.parent)), one.stat().st_size, one.stat().st_mtime_ns] for one in files]


class CropIndex:
    """An index, opened for reading.

    Each process opens its own connection at its first query, so an index can be passed to forked or spawned workers.

    Args:
        url: A file for SQLite, or the URL of a PostgreSQL database.
        wanted: The settings of the index.
        force_create: Always scan again.

    Raises:
        InputError: The database cannot be used, or a volume cannot be read.
    """

    def __init__(self, url: str, wanted: Wanted, force_create: bool = False) -> None:
        self.url, self.wanted = url, wanted
        self._connections: dict[int, Any] = {}
        with database.told(url), database.writing(url) as connection:
            self.number = _built(connection, wanted, force_create)
            self._length = int(_count(connection, self.number))

    def __len__(self) -> int:
        return self._length

    def crop(self, place: int) -> tuple[Any, list[Any]]:
        """Return the crop at a place (from 0) in the table of crops, and the rows of its objects by ascending id."""
        sql, tables = database.sql(), database.schema()
        crops, objects = tables.crops, tables.objects
        with database.told(self.url):
            connection = self._connection()
            where = (crops.c.index == self.number) & (crops.c.place == place)
            row = connection.execute(sql.select(crops).where(where)).one()
            chosen = sql.select(objects).where(objects.c.crop == row.id).order_by(objects.c.object)
            return row, list(connection.execute(chosen))

    def volumes(self) -> list[str]:
        """Return the volume of each crop, ordered by place."""
        sql, crops = database.sql(), database.schema().crops
        chosen = sql.select(crops.c.volume).where(crops.c.index == self.number).order_by(crops.c.place)
        with database.told(self.url):
            return [row.volume for row in self._connection().execute(chosen)]

    def _connection(self) -> Any:
        if os.getpid() not in self._connections:
            self._connections = {os.getpid(): database.engine(self.url).connect()}
            weakref.finalize(self, _close, self._connections)
        return self._connections[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the connection, which belongs to one process."""
        return {**self.__dict__, "_connections": {}}


def _close(connections: Mapping[int, Any]) -> None:
    """Close the connection of this process."""
    if (own := connections.get(os.getpid())) is not None:
        own.close()


def crops_of(entry: Entry, wanted: Wanted) -> Iterator[tuple[Box, list[tuple[int, ...]]]]:
    """Yield a volume's crops with enough objects, each with (id, class, box, voxels) of its objects."""
    classes = entry.classes()
    with opened(entry.need(LABEL), sparse=True) as stored:
        for begin in np.ndindex(*(len(b) for b in _begins(stored.size, wanted))):
            corner = vec3(axis[i] for axis, i in zip(_begins(stored.size, wanted), begin, strict=True))
            box = Box(corner, vec3(min(c + n, s) for c, n, s in zip(corner, wanted.crop, stored.size, strict=True)))
            found = objects_of(stored.read(box)[0], classes, wanted.min_voxels)
            if len(found) >= wanted.min_objects:
                yield box, found


def _begins(size: Vec3, wanted: Wanted) -> list[list[int]]:
    """Return the positions at which crops begin along each axis."""
    axes = []
    for length, crop, stride in zip(size, wanted.crop, wanted.stride, strict=True):
        last = max(length - crop, 0)
        axes.append([*range(0, last, stride), last])
    return axes


def objects_of(ids: Array, classes: Mapping[int, int] | None, min_voxels: int) -> list[tuple[int, ...]]:
    """Return (id, class, z1, y1, x1, z2, y2, x2, voxels) of each object of a volume; skip objects without a class."""
    names, voxels = np.unique(ids, return_counts=True)
    real = names != 0
    rows = zip(names[real].tolist(), boxes_of(ids).tolist(), voxels[real].tolist(), strict=True)
    of = [(name, 1 if classes is None else classes.get(name, 0), *box, n) for name, box, n in rows if n >= min_voxels]
    return [row for row in of if row[1] > 0]


def _built(connection: Any, wanted: Wanted, force: bool) -> int:
    """Return the number of the index; build it if it does not exist or the files have changed."""
    sql, tables = database.sql(), database.schema()
    indexes, stamp = tables.indexes, wanted.stamp
    tables.meta.create_all(connection)
    held = connection.execute(sql.select(indexes).where(indexes.c.key == wanted.key)).one_or_none()
    if held is not None and held.stamp == stamp and not force:
        return int(held.id)
    if held is not None:
        own = sql.select(tables.crops.c.id).where(tables.crops.c.index == held.id)
        connection.execute(sql.delete(tables.objects).where(tables.objects.c.crop.in_(own)))
        connection.execute(sql.delete(tables.crops).where(tables.crops.c.index == held.id))
        connection.execute(sql.delete(indexes).where(indexes.c.id == held.id))
    added = connection.execute(sql.insert(indexes).values(key=wanted.key, stamp=stamp))
    number = int(added.inserted_primary_key[0])
    _fill(connection, number, wanted)
    return number


def _fill(connection: Any, number: int, wanted: Wanted) -> None:
    sql, tables, place = database.sql(), database.schema(), 0
    for name in wanted.names:
        entry = Entry(Path(wanted.folder), name)
        with opened(entry.need(IMAGE)) as image:
            channels = range(image.channels) if wanted.each_channel else [-1]
        for box, found in crops_of(entry, wanted):
            for channel in channels:
                z, y, x = box.begin
                row = {"index": number, "place": place, "volume": name, "z": z, "y": y, "x": x, "channel": channel}
                added = connection.execute(sql.insert(tables.crops).values(**row, objects=len(found)))
                crop, place = int(added.inserted_primary_key[0]), place + 1
                fields = ("object", "label", *database.BOX, "voxels")
                rows = [{"crop": crop, **dict(zip(fields, one, strict=True))} for one in found]
                if rows:
                    connection.execute(sql.insert(tables.objects), rows)


def _count(connection: Any, number: int) -> int:
    sql, crops = database.sql(), database.schema().crops
    found: int = connection.execute(sql.select(sql.func.count()).where(crops.c.index == number)).scalar_one()
    return found


def split_by_group(groups: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split items into two parts by group: about `share` of the groups, drawn at random, go into the second part.

    No group is in both parts. If there are several groups, neither part is empty.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    many = round(share * len(names))
    if len(names) > 1 and 0 < share < 1:
        many = min(max(many, 1), len(names) - 1)
    second = {names[i] for i in order[:many]}
    return [i for i, g in enumerate(groups) if g not in second], [i for i, g in enumerate(groups) if g in second]
