"""Serve volumes to neuroglancer, chunk by chunk as the viewer asks for them, with all formats of `deepem.io`.

::

    browser  --chunk-->  neuroglancer's server  -->  Window (one box of a file)          HDF5, TIFF, zarr, N5, numpy
                                                -->  Files (one file of a volume)        precomputed: levels, meshes

Precomputed volumes go to the browser file by file as they are stored, so that it reads their coarser levels, meshes and
skeletons, with this machine's credentials.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.io.addresses import allow_keys_without_token
from deepem.tools.view_layers import Layer
from deepem.utils.errors import InputError, reason, warn
from deepem.utils.geometry import Box

Array = NDArray[Any]

MESHED = 2**27
"""Voxels of the largest volume of which meshes are made: that reads the whole volume into memory."""

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Window:
    """A volume as an array that neuroglancer slices; each slice reads a box of the file.

    Attributes:
        shape: (Z, Y, X) of one channel, else (C, Z, Y, X).
        dtype: uint64 for labels, else a type that WebGL can draw.
        failure: The first box that could not be read; None if there is none.
    """

    def __init__(self, layer: Layer) -> None:
        stored = layer.seen.stored
        self._layer, self._lock = layer, nullcontext() if layer.remote else threading.Lock()
        self.shape = layer.size if stored.channels == 1 else (stored.channels, *layer.size)
        self.dtype = drawable(layer.seen.dtype, layer.form.labels)
        self.failure: InputError | None = None

    def __getitem__(self, where: tuple[slice, ...]) -> Array:
        z, y, x = where[-3:]
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        try:
            with self._lock:  # h5py and tifffile read one box at a time
                array = self._layer.seen.stored.read(box)
        except InputError as error:
            if self.failure is None:
                warn(f"{error.where}: got {error.got}, wants {error.wants}")
            self.failure = self.failure or error
            raise
        found: Array = array[where[0]] if len(self.shape) == 4 else array[0]
        return found.astype(self.dtype, copy=False)

    def transpose(self) -> Array:
        """Read the whole volume, (X, Y, Z), to make meshes."""
        whole: Array = self[Box((0, 0, 0), self._layer.size).slices()]
        return np.transpose(whole)


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
        neuroglancer.stop()


def sources_of(layers: Sequence[Layer], serving: Any, token: str) -> tuple[dict[str, Any], list[Window]]:
    """Return layer name -> data source of neuroglancer, and the volumes that are read through Python.

    Args:
        layers: The layers.
        serving: neuroglancer's server module; the server is running.
        token: The viewer's secret, which addresses of volumes contain.
    """
    found: dict[str, Any] = {}
    windows: list[Window] = []
    for number, layer in enumerate(layers):
        if _is_precomputed(layer):
            place = f"/deepem/{token}/{number}/"
            _serve_files(serving.global_server, place, layer.seen.stored.data.volume.cloudpath)
            found[layer.name] = f"precomputed://{serving.get_server_url()}{place}"
            continue
        windows.append(Window(layer))
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
    )  # fmt: skip


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
