"""Output volumes in HDF5 files, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from deepem.io.faults import unwritable
from deepem.io.hdf5_writing import Outlet, new_hdf5
from deepem.io.volume import Array
from deepem.utils.files import remove_torn, replacing
from deepem.utils.geometry import Box


class Hdf5Sink:
    """One HDF5 file per output, dataset ``/main`` (C, Z, Y, X), written box by box.

    Files get their final names when the block ends without an exception; until then existing files are not touched.

    Args:
        paths: Output name -> file.
        channels: Output name -> number of channels.
        covered: The voxels of the input volume that the outputs cover.
        dtype: float32, or uint8 for classes and for probabilities times 255, rounded; one for all, or by output name.
        attributes: Output name -> attributes of the dataset.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        channels: Mapping[str, int],
        covered: Box,
        dtype: str | Mapping[str, str] = "float32",
        attributes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.paths, self.channels, self.covered = paths, channels, covered
        self.dtypes = {name: np.dtype(dtype if isinstance(dtype, str) else dtype[name]) for name in paths}
        self.attributes = attributes or {}
        self._stack = ExitStack()
        self._data: dict[str, h5py.Dataset] = {}
        self._outlets: dict[str, Outlet] = {}

    def __enter__(self) -> Hdf5Sink:
        with ExitStack() as stack:  # exits in reverse order: all files are closed before the first is renamed
            beside = {name: stack.enter_context(replacing(path)) for name, path in self.paths.items()}
            for name, path in self.paths.items():
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    remove_torn(path.parent)
                    file, self._outlets[name] = stack.enter_context(new_hdf5(beside[name]))
                except OSError as error:
                    raise unwritable(path, error) from error
                shape = (self.channels[name], *self.covered.size)
                self._data[name] = file.create_dataset("main", shape, self.dtypes[name])
                self._data[name].attrs.update(self.attributes.get(name, {}))
            self._stack = stack.pop_all()
        return self

    def write(self, box: Box, values: Mapping[str, Array], last: bool = True) -> None:
        """Write a box of every output: (C, Z, Y, X) float32; the box is in voxels of the input volume."""
        z, y, x = box.shift(-b for b in self.covered.begin).slices()
        for name, value in values.items():
            try:
                for channel, planes in enumerate(value):  # h5py would copy non-contiguous arrays
                    self._data[name][channel, z, y, x] = as_stored(planes, self.dtypes[name])
                self._outlets[name].check()
            except OSError as error:
                raise unwritable(self.paths[name], error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        except (OSError, RuntimeError) as failure:
            if kind is not None:
                return
            raise unwritable(next(iter(self.paths.values())), failure) from failure


def as_stored(value: Array, dtype: np.dtype[Any]) -> Array:
    """Convert values for storage: probabilities as float32 or rounded uint8 of probability * 255; classes unchanged."""
    if dtype != np.uint8 or value.dtype == np.uint8:
        return value
    stored = np.empty(value.shape, np.uint8)
    for plane in np.ndindex(value.shape[:-2]):  # channel by channel, which avoids a float copy of the whole array
        stored[plane] = np.rint(value[plane] * 255)
    return stored
