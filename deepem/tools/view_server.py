"""Serve volumes to neuroglancer, chunk by chunk as the viewer asks for them, with all formats of `deepem.io`.

::

    browser  --slice-->  neuroglancer's server  -->  Window: cached chunks of a file     HDF5, TIFF, zarr, N5, numpy
                                                -->  Files: one file of a volume         precomputed: levels, meshes

Precomputed volumes go to the browser file by file as they are stored, so that it reads their coarser levels, meshes and
skeletons, with this machine's credentials.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.cache import Kept, Recent
from deepem.data.drawn import Drawn, Storing
from deepem.io.addresses import allow_keys_without_token
from deepem.io.lazy import Lazy
from deepem.tools.view_layers import Layer
from deepem.utils.errors import InputError, reason, warn
from deepem.utils.geometry import Box, touched

Array = NDArray[Any]

CACHED = 2**30
"""Bytes of chunks, after decompression, that are kept for the next slices."""

SLICE, COARSEST = 512, 8
"""Sides of the slices that neuroglancer asks for, and of the voxels that may become a pixel of them, averaged."""

AT_ONCE = 2**26
"""Bytes that a slice of the coarsest level may read. The viewer asks for coarse levels first, wherever it looks."""

MESHED = 2**27
"""Voxels of the largest volume of which meshes are made: that reads the whole volume into memory."""

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Window:
    """A volume as an array that neuroglancer slices; each slice reads the chunks of the file that are not cached.

    Args:
        layer: The volume.
        cache: The cache of its chunks.

    Attributes:
        shape: (Z, Y, X) of one channel, else (C, Z, Y, X).
        dtype: uint64 for labels, else a type that WebGL can draw.
        failure: The first box that could not be read; None if there is none.
    """

    def __init__(self, layer: Layer, cache: Kept) -> None:
        self.dtype = drawable(layer.seen.dtype, layer.form.labels)
        self._drawn, self._cache = Drawn(Lazy(layer.seen.file), Storing("cast", self.dtype)), cache
        self.shape = self._drawn.shape if layer.seen.stored.channels > 1 else layer.size
        self.failure: InputError | None = None

    def __getitem__(self, where: tuple[slice, ...]) -> Array:
        z, y, x = where[-3:]
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        array = np.empty((self._drawn.shape[0], *box.size), self.dtype)
        try:
            for chunk in touched(box, self._drawn.lazy.chunks, self._drawn.lazy.window):  # one at a time in memory
                part = chunk.intersect(box)
                assert part is not None
                z, y, x = part.shift(-b for b in box.begin).slices()
                array[:, z, y, x] = self._cache.get(self._drawn, part)
        except InputError as error:
            if self.failure is None:
                warn(f"{error.where}: got {error.got}, wants {error.wants}")
            self.failure = self.failure or error
            raise
        found: Array = array[where[0]] if len(self.shape) == 4 else array[0]
        return found

    def transpose(self) -> Array:
        """Read the whole volume, (X, Y, Z), to make meshes."""
        whole: Array = self[Box((0, 0, 0), self._drawn.lazy.size).slices()]
        return np.transpose(whole)

    def close(self) -> None:
        """Close the file."""
        self._drawn.lazy.close()


def drawable(dtype: np.dtype[Any], labels: bool) -> np.dtype[Any]:
    """Return the type in which values reach the browser: ids keep all their bits, -1 becomes 2**64 - 1."""
    if labels:
        return np.dtype(np.uint64)
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype.kind == "f" or dtype.itemsize > 4 else dtype.newbyteorder("=")


@contextmanager
def server(host: str, port: int) -> Iterator[Any]:
    """Start neuroglancer's server, and yield its module.

    Raises:
        InputError: neuroglancer is not installed, or the address cannot be served on.
    """
    try:
        import neuroglancer
        from neuroglancer import server as serving
    except ImportError as error:
        raise InputError("neuroglancer", f"no package {error.name}", "pip install 'deepem[view]'") from error
    neuroglancer.set_server_bind_address(host, port)
    try:
        serving.start()
    except OSError as error:
        known = isinstance(error, PermissionError) or "in use" in str(error)
        where = ("--port", port) if known else ("--host", host)
        wants = "a free port that you may use" if known else "an address of this machine"
        raise InputError(where[0], f"{where[1]}: {error.strerror or error}", wants) from error
    try:
        yield serving
    finally:
        with _silenced("tornado", "asyncio", "concurrent.futures"):  # they report requests that are cut off
            serving.global_server.executor.shutdown(cancel_futures=True)
            neuroglancer.stop()


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def sources_of(layers: Sequence[Layer], serving: Any, token: str) -> tuple[dict[str, Any], list[Window]]:
    """Return layer name -> data source of neuroglancer, and the volumes that are read through Python.

    Args:
        layers: The layers.
        serving: neuroglancer's server module; the server is running.
        token: The viewer's secret, which addresses of volumes contain.
    """
    found: dict[str, Any] = {}
    windows: list[Window] = []
    recent = Recent(CACHED)
    for number, layer in enumerate(layers):
        if _is_precomputed(layer):
            place = f"/deepem/{token}/{number}/"
            _serve_files(serving.global_server, place, layer.seen.stored.data.volume.cloudpath)
            found[layer.name] = f"precomputed://{serving.get_server_url()}{place}"
            continue
        windows.append(Window(layer, Kept(recent, number)))
        found[layer.name] = _local_volume(layer, windows[-1])
    return found, windows


def _is_precomputed(layer: Layer) -> bool:
    volume = getattr(layer.seen.stored.data, "volume", None)
    return layer.remote and type(volume).__name__ == "CloudVolumePrecomputed"


def _local_volume(layer: Layer, window: Window) -> Any:
    import neuroglancer
    from neuroglancer.local_volume import MeshesNotSupportedForVolume

    class Volume(neuroglancer.LocalVolume):  # type: ignore[misc]
        """A volume without meshes if they would need more memory than is reasonable."""

        def get_object_mesh(self, object_id: int) -> Any:
            if np.prod(self.shape) > MESHED:
                raise MeshesNotSupportedForVolume
            return super().get_object_mesh(object_id)

    unit = "" if layer.voxel_size_nm is None else "nm"
    lead = len(window.shape) - 3
    space = neuroglancer.CoordinateSpace(
        names=[*["c^"] * lead, "z", "y", "x"],
        units=[*[""] * lead, *[unit] * 3],
        scales=[*[1] * lead, *layer.scale],
    )
    return Volume(
        window, space, voxel_offset=(0,) * lead + layer.offset,
        volume_type="segmentation" if layer.form.labels else "image",
        downsampling="2d", max_downsampling=coarsest(layer) ** 2,
    )  # fmt: skip


def coarsest(layer: Layer) -> int:
    """Return how many voxels per side become a pixel of the coarsest level; 1 for no other levels."""
    _, height, width = layer.size
    for side in (COARSEST, COARSEST // 2, COARSEST // 4):
        if min(SLICE * side, height) * min(SLICE * side, width) * layer.bytes_per_column <= AT_ONCE:
            return side
    return 1


def _serve_files(running: Any, place: str, cloudpath: str) -> None:
    """Serve the files of a precomputed volume under an address."""
    from cloudfiles import CloudFiles
    from tornado.ioloop import IOLoop
    from tornado.web import RequestHandler

    allow_keys_without_token()
    files = CloudFiles(cloudpath.removeprefix("precomputed://"), progress=False)

    class Files(RequestHandler):  # type: ignore[misc]
        """Sends a file of the volume, or a range of its bytes."""

        async def get(self, name: str) -> None:
            if not is_inside(name):
                self.send_error(404)
                return
            part = RANGE.fullmatch(self.request.headers.get("Range", ""))
            wanted: Any = name if part is None else {"path": name, "start": int(part[1]), "end": int(part[2]) + 1}
            try:
                found = await IOLoop.current().run_in_executor(running.executor, files.get, wanted)
            except Exception as error:  # noqa: BLE001 each store raises its own errors; the viewer goes on
                warn(f"{cloudpath}/{name}: {reason(error)}")
                self.send_error(502)
                return
            content = found.get("content") if isinstance(found, Mapping) else found
            if content is None:
                self.send_error(404)
                return
            if part is not None:
                self.set_status(206)
                self.set_header("Content-Range", f"bytes {part[1]}-{part[2]}/*")
            self.set_header("Content-Type", "application/octet-stream")
            self.finish(content)

    running.app.add_handlers(r".*", [(f"^{re.escape(place)}(?P<name>.+)$", Files)])


def is_inside(name: str) -> bool:
    """Whether the path of a request stays inside the volume."""
    return not any(part in ("", ".", "..") for part in name.split("/")) and "\\" not in name and "\0" not in name
