"""What a model costs and sees: parameters, receptive field, FLOPs, memory, patch sizes. Nothing is computed but shapes.

deepem summary --model rsunet --fov 20,256,256 --voxel_size_nm 40,4,4
"""

from __future__ import annotations

from collections.abc import Sequence

from deepem.tools import output
from deepem.utils import argv


def main(words: Sequence[str]) -> int:
    """Print the summary of the model that the command line names."""
    parser = argv.Parser("deepem summary", __doc__ or "")
    parser.add_argument("--model", default="rsunet", help="model module")
    parser.add_argument("--fov", type=argv.size, default=(20, 256, 256), help="patch, z,y,x")
    parser.add_argument("--voxel_size_nm", type=argv.fractions, default=(40.0, 4.0, 4.0), help="z,y,x")
    parser.add_argument("--in_channels", type=argv.counting, default=1, help="channels of the image")
    parser.add_argument("--channels", type=argv.counting, default=3, help="channels of the output")
    parser.add_argument("--batch_size", type=argv.counting, default=1, help="patches per step")
    with output.errors_of(parser.prog):
        options = vars(argv.parse(parser, words, {"model": "model"}, lambda _: None))
        from deepem.tools.cost import summary

        for name, value in summary(options):
            output.say(f"{name:<28} {value}")
    return 0
