"""TensorBoard events, written at once and in this thread.

tensorboardX hands events to a thread of its own. When that cannot write, it ends, its queue fills up, and the run hangs
for ever; here a disk that is full is an error where it is met.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, time

from deepem.train.render import Picture
from deepem.utils.errors import InputError

FLUSH_S = 30.0
"""Events may stay in memory for so long."""


class Board:
    """An event file in a folder.

    Args:
        folder: `logs/` of the run.

    Raises:
        InputError: the file cannot be written, here and in every method.
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
        """Write out what is buffered, and close the file."""
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
