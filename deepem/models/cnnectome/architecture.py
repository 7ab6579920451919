"""The U-Net built from a settings object, as in DaCapo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from deepem.models.cnnectome.settings import Equivariant, Kernel, Kernels, Padding, Pooling, Size, choice_of, factors_of
from deepem.models.cnnectome.superres import SuperResolution
from deepem.models.cnnectome.unet import CNNectomeUNetModule

NEEDED = ("input_shape", "fmaps_out", "fmaps_in", "num_fmaps", "fmap_inc_factor", "downsample_factors")
OTHER_NAMES = {"num_in_channels": "fmaps_in", "num_out_channels": "fmaps_out"}


@dataclass(frozen=True)
class CNNectomeUNetConfig:
    """Settings of a `CNNectomeUNet`; the first six must be given, because no default would be sensible.

    Attributes:
        input_shape: Shape of the input in training, ([l,] z, y, x).
        fmaps_out: Channels of the output.
        fmaps_in: Channels of the input.
        num_fmaps: Channels of the finest level.
        fmap_inc_factor: Factor by which channels grow from level to level.
        downsample_factors: Pooling (z, y, x) or (y, x) per level, finest first.
        kernel_size_down: Kernels per level and convolution on the way down, two of 3 by default.
        kernel_size_up: Kernels on the way up, in the same form; super-resolution uses those of the lowest level too.
        eval_shape_increase: How much larger the input may be in evaluation.
        constant_upsample: Upsample by nearest neighbour and a 1x1x1 convolution instead of a transposed convolution.
        padding: 'valid' or 'same'.
        upsample_factors: Factors of super-resolution after the network.
        use_attention: Weigh the skips by the coarser maps.
        batch_norm: Apply batch norm after every convolution.
        pooling: 'max' or 'avg'.
        activation: Name of a class of torch.nn.
        num_heads: Number of decoders.
        upsample_channel_contraction: Whether upsampling to a level reduces the channels; by default at all levels but
            the finest.
        activation_on_upsample: Apply the activation after upsampling too.
        superres_padding: Padding of the convolutions of super-resolution.
        fov: Field of view before the first convolution, in physical units; one voxel by default.
        voxel_size: Size of an input voxel in physical units, 1 by default.
        equivariant: Whether upsampled maps are cropped: True, False, or 'eval' for evaluation mode only.
    """

    input_shape: Sequence[int] | None = None
    fmaps_out: int | None = None
    fmaps_in: int | None = None
    num_fmaps: int | None = None
    fmap_inc_factor: int | None = None
    downsample_factors: Sequence[Kernel] | None = None
    kernel_size_down: Kernels | None = None
    kernel_size_up: Kernels | None = None
    eval_shape_increase: Sequence[int] | None = None
    constant_upsample: bool = True
    padding: Padding = "valid"
    upsample_factors: Sequence[Kernel] | None = None
    use_attention: bool = False
    batch_norm: bool = False
    pooling: Pooling = "max"
    activation: str = "ReLU"
    num_heads: int = 1
    upsample_channel_contraction: bool | Sequence[bool] | None = None
    activation_on_upsample: bool = True
    superres_padding: Padding = "valid"
    fov: Sequence[int] | None = None
    voxel_size: Sequence[int] | None = None
    equivariant: Equivariant = True


SETTINGS = {field.name: field.default for field in fields(CNNectomeUNetConfig)}


class CNNectomeUNet(nn.Module):
    """U-Net built from a settings object, with super-resolution if `upsample_factors` are given.

    Args:
        architecture_config: A `CNNectomeUNetConfig`, or any object with the same attributes.

    Attributes:
        unet: The network, `module()`.
        dims: Number of spatial axes.

    Every setting is also an attribute. Reading a required setting that was not given raises AttributeError.
    """

    unet: CNNectomeUNetModule | SuperResolution

    def __init__(self, architecture_config: object) -> None:
        super().__init__()
        for name, default in SETTINGS.items():
            value = getattr(architecture_config, name, default)
            if value is not None or name not in (*NEEDED, "eval_shape_increase"):
                setattr(self, name, value)
        for name in ("input_shape", "eval_shape_increase"):
            if name in self.__dict__:
                setattr(self, name, tuple(getattr(self, name)))
        self.unet = self.module()
        self.dims = self.unet.dims
        ones = (1,) * self.dims
        self.fov: Size = tuple(getattr(architecture_config, "fov", None) or ones)
        self.voxel_size: Size = tuple(getattr(architecture_config, "voxel_size", None) or ones)

    def __getattr__(self, name: str) -> Any:
        """Look up modules by name; the error names the setting that was not given."""
        wanted = OTHER_NAMES.get(name, name)
        if wanted in SETTINGS:
            raise AttributeError(f"CNNectomeUNet: the setting {wanted} is not given")
        return super().__getattr__(name)

    @property
    def num_in_channels(self) -> int:
        """Channels of the input."""
        return int(self.fmaps_in)

    @property
    def num_out_channels(self) -> int:
        """Channels of the output."""
        return int(self.fmaps_out)

    def module(self) -> CNNectomeUNetModule | SuperResolution:
        """Build a new network with these settings.

        Raises:
            AttributeError: a required setting is missing.
            InputError: settings contradict each other.
        """
        for name in NEEDED:
            getattr(self, name)
        factors = factors_of(self.downsample_factors)
        contract = self.upsample_channel_contraction
        unet = CNNectomeUNetModule(
            in_channels=self.fmaps_in,
            num_fmaps=self.num_fmaps,
            fmap_inc_factor=self.fmap_inc_factor,
            downsample_factors=factors,
            kernel_size_down=self.kernel_size_down,
            kernel_size_up=self.kernel_size_up,
            activation=self.activation,
            num_fmaps_out=self.fmaps_out,
            num_heads=self.num_heads,
            constant_upsample=self.constant_upsample,
            padding=self.padding,
            upsample_channel_contraction=[False, *[True] * (len(factors) - 1)] if contract is None else contract,
            activation_on_upsample=self.activation_on_upsample,
            use_attention=self.use_attention,
            batch_norm=self.batch_norm,
            pooling=self.pooling,
            equivariant=self.equivariant,
        )
        choice_of(self.superres_padding, ("valid", "same"), "superres_padding")
        finer = self.upsample_factors
        return SuperResolution(unet, finer, self.superres_padding) if finer else unet

    def scale(self, voxel_size: Sequence[int]) -> tuple[float, ...]:
        """Voxel size of the output: the input's voxel size divided by the factors of super-resolution.

        Raises:
            ValueError: there is no voxel size, or it has a different number of axes.
        """
        if voxel_size is None or len(voxel_size) != self.dims:
            raise ValueError(f"a voxel size of {self.dims} axes, not {voxel_size}")
        size: list[float] = list(voxel_size)
        finer: Sequence[Size] = factors_of(self.upsample_factors, dims=self.dims) if self.upsample_factors else []
        for factor in finer:
            size = [n // f if n % f == 0 else n / f for n, f in zip(size, factor, strict=True)]
        return tuple(size)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(N, fmaps_in, [L,] [Z,] Y, X) -> (N, fmaps_out, ...); a list with one output per head if there are several.

        Raises:
            ShapeError: the size does not fit the network; the error names the nearest sizes that do.
        """
        return self.unet(x)  # type: ignore[no-any-return]
