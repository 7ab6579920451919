"""The U-Net of the CNNectome and of DaCapo."""

from deepem.models.cnnectome.architecture import CNNectomeUNet, CNNectomeUNetConfig
from deepem.models.cnnectome.blocks import AttentionBlockModule, ConvPass, Downsample
from deepem.models.cnnectome.dacapo import dacapo_keys
from deepem.models.cnnectome.sizes import ShapeError, Sizes
from deepem.models.cnnectome.superres import SuperResolution
from deepem.models.cnnectome.unet import CNNectomeUNetModule
from deepem.models.cnnectome.upsample import Upsample

__all__ = [
    "AttentionBlockModule",
    "CNNectomeUNet",
    "CNNectomeUNetConfig",
    "CNNectomeUNetModule",
    "ConvPass",
    "Downsample",
    "ShapeError",
    "Sizes",
    "SuperResolution",
    "Upsample",
    "dacapo_keys",
]
