"""Crops of light-sheet volumes that stay on disk, with an index of their objects in SQLite or PostgreSQL.

The folder has the layout of `lightsheet.folder`. One scan finds the objects of each crop. After that, a crop is read
only when it is drawn, so volumes may be larger than memory. In Python, `gather_dataset` returns the crops as a
`torch.utils.data.Dataset` or as data loaders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.dataset.lightsheet.folder import ids_in
from deepem.utils.geometry import Vec3

__all__ = ["data_info", "gather_dataset", "get_items", "ids_in"]

data_info: Mapping[str, Any] = {}


def get_items(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    database: str | None = None,
    crop_size: tuple[int, int, int] = (64, 64, 64),
    crop_stride: tuple[int, int, int] | None = None,
    min_object_voxels: int = 1,
    min_objects: int = 1,
    channels: list[int] | None = None,
    each_channel: bool = False,
    intensity_low: float | None = None,
    intensity_high: float | None = None,
    force_create: bool = False,
) -> Any:
    """Return the crops of volumes as a Dataset of (image, target) with boxes, labels and masks.

    Args:
        data_dir: The folder.
        data_ids: Ids of volumes, by default all.
        database: The index: a file, or the URL of a PostgreSQL; by default crops.db in the folder.
        crop_size: Size of a crop, z,y,x.
        crop_stride: Between neighbouring crops, z,y,x; half a crop by default.
        min_object_voxels: Objects that show fewer voxels in a crop are left out of it.
        min_objects: Crops with fewer objects are left out; 0 keeps empty ones.
        channels: Channels of the image to use, from 0; all by default.
        each_channel: Make a crop of each channel, in place of one of all.
        intensity_low: Grey values up to this become black; 0 by default.
        intensity_high: Grey values from this on become white; by default the maximum of the dtype.
        force_create: Scan the folder again in any case.
    """
    from deepem.data.crop_index import CropIndex, Wanted
    from deepem.data.crop_items import CropItems

    folder = str(Path(data_dir).resolve())
    names = tuple(str(name) for name in data_ids or ids_in(data_dir))
    stride: Any = crop_stride or tuple(max(n // 2, 1) for n in crop_size)
    wanted = Wanted(folder, names, crop_size, stride, min_object_voxels, min_objects, each_channel)
    index = CropIndex(database or str(Path(folder) / "crops.db"), wanted, force_create)
    return CropItems(index, channels, intensity_low, intensity_high)


def gather_dataset(
    data_dir: Path | str,
    *,
    crop_size: Vec3 = (64, 64, 64),
    transforms: Callable[..., Any] | None = None,
    val_share: float = 0.0,
    group: Callable[[str], str] = str,
    seed: int = 0,
    return_loaders: bool = False,
    batch_size: int = 1,
    num_workers: int = 0,
    rank: int = 0,
    world: int = 1,
    **more: Any,
) -> Any:
    """Return the crops of a folder as a Dataset or as data loaders, optionally split in two.

    Args:
        data_dir: The folder.
        crop_size: Size of a crop.
        transforms: Called with (image, target).
        val_share: About this share of the groups goes into a second part; 0 for no split.
        group: From the name of a volume to its group, which is not torn apart.
        seed: Decides the split, and the order of the loaders.
        return_loaders: Give data loaders, whose batches are lists of images and of targets.
        batch_size: Of the loaders.
        num_workers: Of the loaders.
        rank: Of this process among `world`: its loaders give its share.
        world: Number of processes.
        more: Keyword arguments of `get_items`.

    Returns:
        A Dataset or a loader; two of them with a split.
    """
    from torch.utils.data import DataLoader, DistributedSampler, Subset

    from deepem.data.crop_index import split_by_group

    items = get_items(data_dir, crop_size=crop_size, **more)
    items.transforms = transforms
    parts: list[Any] = [items]
    if val_share:
        groups = [group(name) for name in items.index.volumes()]
        parts = [Subset(items, places) for places in split_by_group(groups, val_share, seed)]
    if return_loaders:
        parts = [
            DataLoader(part, batch_size, num_workers=num_workers, collate_fn=lists_of,
                       sampler=DistributedSampler(part, world, rank, shuffle=not n, seed=seed))
            for n, part in enumerate(parts)
        ]  # fmt: skip
    return parts[0] if len(parts) == 1 else tuple(parts)


def lists_of(items: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Images and targets of a batch, which have as many objects as they have."""
    return [image for image, _ in items], [target for _, target in items]
