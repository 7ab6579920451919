"""Look at volumes in neuroglancer: images, labels, affinities, probabilities and segmentations over each other.

    deepem view img.h5 experiments/E/forward/t1_affinity_1000.h5 SEG.h5
    deepem view em=file:///data/em truth=data/t1/seg.h5 seg=SEG.h5 --layout beside
    deepem view img.h5 SEG.h5 --screenshot SEG.png --position 20,128,128 --zoom 4

Prints a link for a browser on this machine, and serves until Ctrl-C. A file is any volume that deepem reads, and is
read chunk by chunk as the viewer asks for it. NAME=FILE names its layer. Its attributes axes, voxel_size_nm, offset,
edges, tasks and values say where it lies and what it is: integers are labels unless they look like an image. The line
of each layer tells what was found, and --kind NAME=KIND corrects it.

Affinities are red along x, green along y and blue along z, whatever the order of the channels; longer edges can be
switched on in the layer's tab. Double-click a segment to select it. Label 0 is transparent, -1 is grey.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepem.tools import output
from deepem.tools.view_options import PROGRAM, ViewOptions, read_words
from deepem.utils.errors import InputError
from deepem.utils.files import write_text
from deepem.utils.stopping import SIGNALS, stopping_tidily

if TYPE_CHECKING:
    from deepem.tools.view_server import Window


def main(words: Sequence[str]) -> int:
    """Show the files until a signal, or draw them."""
    with output.errors_of(PROGRAM), stopping_tidily():
        files, own = read_words(words, __doc__)
        for flag, path in (("--state", own.state), ("--screenshot", own.screenshot)):
            if path is not None:
                output.check_file(flag, path)
        if own.screenshot is not None and own.screenshot.suffix.lower() != ".png":
            raise InputError("--screenshot", own.screenshot, "a picture to write, such as view.png")
        show(files, own)
    return 0


def show(files: Mapping[str, str], own: ViewOptions) -> None:
    """Open the files (layer name -> file), and serve or draw them."""
    with opened_viewer(files, own) as (viewer, windows):
        write_state(own.state, viewer)
        if own.screenshot is not None:
            from deepem.tools.view_picture import draw

            draw(viewer, own.screenshot, own.window, windows)
            output.say(own.screenshot)
            return
        with until_told() as told:
            output.say(f"{viewer.get_viewer_url()}\nserving until Ctrl-C")
            told.wait()
        write_state(own.state, viewer)


@contextmanager
def opened_viewer(files: Mapping[str, str], own: ViewOptions) -> Iterator[tuple[Any, list[Window]]]:
    """Serve files (layer name -> file); yield neuroglancer's viewer and the volumes that it reads through Python.

    Raises:
        InputError: a file cannot be shown, or the address cannot be served on.
    """
    from deepem.tools.view_layers import opened_layers
    from deepem.tools.view_scene import View, centre_of, compose
    from deepem.tools.view_server import server, sources_of

    view = View(own.layout, own.position, own.zoom, own.window)
    with opened_layers(files, own.kind or {}, own.voxel_size) as layers:
        centre_of(layers, view)  # report bad input before the server starts
        width = max(len(layer.name) for layer in layers)
        output.say("\n".join(f"{layer.name:<{width}}  {layer}" for layer in layers))
        with ExitStack() as after, server("127.0.0.1" if own.screenshot else own.host, own.port) as serving:
            from neuroglancer import Viewer

            viewer = Viewer()
            sources, windows = sources_of(layers, serving, viewer.token)
            for window in windows:
                after.callback(window.close)  # once the server has stopped
            with viewer.txn() as state:
                compose(layers, view, sources, state)
            yield viewer, windows


def write_state(path: Path | None, viewer: Any) -> None:
    """Write the state of a viewer, with all that was picked and moved in the browser, as JSON."""
    if path is not None:
        with output.writing("--state", path):
            write_text(path, json.dumps(viewer.state.to_json(), indent=2) + "\n")


@contextmanager
def until_told() -> Iterator[threading.Event]:
    """Yield an event that SIGINT, SIGTERM or SIGHUP set; outside the main thread nothing sets it."""
    told = threading.Event()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, lambda *_: told.set())
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
