"""Super-resolution: an output finer than the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from deepem.models.cnnectome.blocks import ConvPass
from deepem.models.cnnectome.settings import Kernel, Padding, factors_of, size_of
from deepem.models.cnnectome.sizes import Sizes
from deepem.models.cnnectome.unet import CNNectomeUNetModule
from deepem.models.cnnectome.upsample import Upsample


class SuperResolution(nn.Sequential):
    """A U-Net followed, for each factor, by nearest-neighbour upsampling, a 1x1x1 convolution and a convolution pass.

    Args:
        unet: The network.
        factors: (z, y, x) or (y, x) per step. Each head has its own layers.
        padding: Padding of these convolutions, 'valid' or 'same'. As in the public code, their kernels are those of the
            lowest level on the way up.

    Attributes:
        sizes: Which sizes fit.
    """

    def __init__(self, unet: CNNectomeUNetModule, factors: Sequence[Kernel], padding: Padding = "valid") -> None:
        super().__init__(unet)
        self.in_channels, self.out_channels = unet.in_channels, unet.out_channels
        self.num_heads, self.dims = unet.num_heads, unet.dims
        channels, kernels, activation = unet.out_channels, unet.kernel_size_up[-1], unet.activation
        self.sizes = with_finer(unet.sizes, factors, padding)
        for factor, _, _ in self.sizes.finer:
            steps: list[nn.Module] = []
            for _ in range(2 * self.num_heads):
                up = len(steps) < self.num_heads
                steps.append(
                    Upsample(factor, "nearest", channels, channels, activation=activation)
                    if up
                    else ConvPass(channels, channels, kernels, activation, padding, unet.batch_norm)
                )
            for same in (steps[: self.num_heads], steps[self.num_heads :]):
                self.append(same[0] if self.num_heads == 1 else nn.ModuleList(same))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(N, in_channels, ...) -> (N, out_channels, ...), finer; a list with one output per head if there are several.

        Raises:
            ShapeError: the size does not fit the network.
        """
        self.sizes.output_size(x.shape[-self.dims :], "network input", training=self.training)
        unet, *finer = self
        if self.num_heads == 1:
            x = unet(x)
            for step in finer:
                x = step(x)
            return x
        outputs: list[Tensor] = unet(x)
        for steps in finer:
            outputs = [step(y) for step, y in zip(steps, outputs, strict=True)]  # type: ignore[call-overload]
        return outputs


def with_finer(sizes: Sizes, factors: Sequence[Kernel], padding: str) -> Sizes:
    """Sizes of a network followed by super-resolution.

    Raises:
        InputError: the factors and the network have different numbers of axes.
    """
    dims = len(sizes.factors[0])
    found = [size_of(f, dims, "upsample_factors") for f in factors_of(factors, "upsample_factors", dims)]
    return replace(sizes, finer=tuple((f, sizes.up[-1], padding == "same") for f in found))
