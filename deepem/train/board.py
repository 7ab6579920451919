"""TensorBoard events, written synchronously in the calling thread.

tensorboardX writes events in a background thread. If that thread fails to write, it ends, its queue fills up, and the
run hangs for ever. Here a full disk raises an error at the call that met it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, time

from deepem.train.render import Picture
from deepem.utils.errors import InputError

FLUSH_S = 30.0
"""Events stay in memory for at most this many seconds."""


class Board:
    """An event file in a folder.

    Args:
        folder: The folder `logs/` of the run.

    Raises:
        InputError: the file cannot be written. Every method may raise it.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self.folder = folder
        with self._writing():
            self._file = EventsWriter(str(folder / "events"))
            self._file.flush()
        self._flushed = perf_counter()

    def scalar(self, tag: str, value: float, iteration: int) -> None:
        """Add a number."""
        from tensorboardX.summary import scalar

        self._add(scalar(tag, value), iteration)

    def image(self, tag: str, picture: Picture, iteration: int) -> None:
        """Add a picture."""
        from tensorboardX.summary import image

        self._add(image(tag, picture), iteration)

    def text(self, tag: str, words: str, iteration: int) -> None:
        """Add a text in Markdown."""
        from tensorboardX.summary import text

        self._add(text(tag, words), iteration)

    def close(self) -> None:
        """Flush the buffer and close the file."""
        with self._writing():
            self._file.close()

    def _add(self, summary: object, iteration: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with self._writing():
            self._file.write_event(Event(wall_time=time(), step=iteration, summary=summary))
            if perf_counter() - self._flushed > FLUSH_S:
                self._file.flush()
                self._flushed = perf_counter()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(self.folder, error.strerror or error, "a disk that takes the log") from error
