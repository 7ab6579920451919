"""The U-Net between input patches and output heads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from deepem.models.cnnectome.dacapo import dacapo_keys
from deepem.models.cnnectome.length import per_frame
from deepem.models.cnnectome.sizes import Sizes
from deepem.models.cnnectome.superres import SuperResolution
from deepem.models.cnnectome.unet import CNNectomeUNetModule
from deepem.models.layers import Conv, OutputBlock, Spec
from deepem.utils.crop import centre_crop
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3


class CNNectomeModel(nn.Module):
    """A U-Net with one convolution per head.

        (N, C, Z, Y, X) [- "in" conv] - core - "out", one conv per head [- crop] -> {head: logits}

    Args:
        core: The network; if it has several decoders, one per head.
        out_spec: The heads.
        in_channels: Channels of one frame of the image.
        io_kernel: Kernel of a padded convolution before the network, and of the heads. If None, the image enters the
            network directly and heads are 1x1x1; only then is the output of a valid network independent of the patch.
        length: Number of frames: the image's channels are reshaped to (channels, length) for the network.
        cropsz: Fraction of the patch (z, y, x) that the output keeps, unless the network's output is already smaller.

    Attributes:
        shape: Which patch sizes fit.
    """

    def __init__(
        self,
        core: CNNectomeUNetModule | SuperResolution,
        out_spec: Spec,
        *,
        in_channels: int,
        io_kernel: Vec3 | None = None,
        length: int = 1,
        cropsz: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.shape: Sizes = core.sizes
        self.length = length
        before: nn.Module = nn.Identity()
        if io_kernel is not None:
            inner: int = core.in_channels
            before = nn.Sequential(OrderedDict(conv=Conv(in_channels, inner, io_kernel)))
        self.add_module("in", before)
        self.core = core
        self.out = OutputBlock(core.out_channels, out_spec, io_kernel or 1)
        self.cropsz = cropsz

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, Z, Y, X) in [0, 1] -> {head: logits (N, C, Z', Y', X')}.

        Raises:
            ShapeError: the size does not fit the network; the error names the nearest sizes that do.
        """
        patch = x.shape[-3:]
        self.shape.output_size(patch, "network input", training=self.training)
        if self.length > 1:
            x = x.unflatten(1, (-1, self.length))
        features = self.core(per_frame(getattr(self, "in"), x))
        if isinstance(features, list):
            outputs = {name: head(y) for (name, head), y in zip(self.out.named_children(), features, strict=True)}
        else:
            outputs = self.out(features)
        if self.cropsz is None:
            return outputs
        size = [round(n * f) for n, f in zip(patch, self.cropsz, strict=True)]
        return {name: centre_crop(y, vec3(map(min, size, y.shape[-3:]))) for name, y in outputs.items()}

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename weights written by DaCapo for this network; weights of this network stay as they are.

        DaCapo's head is loaded if this model has exactly one head, and dropped otherwise. See `dacapo_keys` for the
        names.
        """
        heads = [name for name, _ in self.out.named_children()]
        return dacapo_keys(weights, heads[0] if len(heads) == 1 else None)


def frames_of(channels: int, length: int, sizes: Sizes) -> int:
    """Channels per frame of an image whose channels are divided into `length` frames.

    Raises:
        InputError: the length does not divide the channels, or the network's output has more than one frame.
    """
    if length < 1 or channels % length:
        raise InputError("length", length, f"a divisor of the {channels} channels of the image")
    if sizes.length(length) != 1:
        fits = next(n for n in range(1, 10**6) if sizes.length(n))
        wants = f"{fits}, of which the convolutions of this network leave one frame"
        raise InputError("length", length, "1, or padding valid" if sizes.padded and length > 1 else wants)
    return channels // length
