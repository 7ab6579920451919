"""Summarise a model: parameters, receptive field, FLOPs, memory, patch sizes. All of it comes from shapes alone.

deepem summary --model rsunet --fov 20,256,256 --voxel_size_nm 40,4,4
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepem.cli import plugins
from deepem.cli import words as readers
from deepem.cli.flags import Group, filled, flag
from deepem.cli.parser import Parser
from deepem.tools import output
from deepem.utils.geometry import Vec3


@dataclass(frozen=True)
class SummaryOptions(Group):
    """The model and its input."""

    title = "network"
    model: str = flag("rsunet", "model module", metavar="MODULE")
    fov: Vec3 = flag((20, 256, 256), "patch", read=readers.size, metavar="Z,Y,X")
    voxel_size_nm: tuple[float, float, float] = flag((40.0, 4.0, 4.0), "size of a voxel in nm")
    in_channels: int = flag(1, "channels of the image", read=readers.counting)
    channels: int = flag(3, "channels of the output", read=readers.counting)
    batch_size: int = flag(1, "patches per step", read=readers.counting)


def main(words: Sequence[str]) -> int:
    """Print the summary of the model that the command line names."""
    parser = Parser("deepem summary", __doc__ or "", "deepem summary --model rsunet --fov 20,256,256")
    parser.add_group(SummaryOptions)
    with output.errors_of(parser.prog) as flags:
        given = parser.read(words)
        flags.update(given.values)
        options = filled(SummaryOptions, given.values)
        from deepem.tools.cost import summary

        model = plugins.named("model", options.model, given.plug_in_flags)
        rows = summary(
            model, options.fov, options.voxel_size_nm, options.in_channels, options.channels, options.batch_size
        )
        for name, value in rows:
            output.say(f"{name:<28} {value}")
    return 0
