"""Convolutions that the stages of a detector share."""

from __future__ import annotations

from torch import nn


class ConvNormActivation(nn.Sequential):
    """A size-preserving 3-D convolution followed by ReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Kernel size, odd.
        dilation: Dilation of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        padding = (kernel_size - 1) // 2 * dilation
        convolution = nn.Conv3d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)
        super().__init__(convolution, nn.ReLU(inplace=True))
        self.out_channels = out_channels
