"""Residual networks in 3-D (He et al. 2015, arXiv:1512.03385).

::

    image - 7x7x7 conv - norm - ReLU - 3x3x3 max-pool - stage p2 - stage p3 - stage p4 - stage p5
                 /2                         /2           /4          /8         /16        /32

Parameters have torchvision's names, so that public 2-D weights can be inflated (`inflate`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.backbones.parts.base import Backbone, Maps, through
from deepem.models.backbones.parts.norms import Norm, norm_of
from deepem.models.emvision.utils import Triple, mul3, triple
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

STAGES = ("p2", "p3", "p4", "p5")


def _conv(in_channels: int, out_channels: int, kernel: int, stride: Triple = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, kernel, triple(stride), kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions with a residual connection.

    Args:
        in_channels: Channels of the input.
        width: Channels of the convolutions.
        stride: Stride of the first convolution, (z, y, x).
        downsample: Module that maps the input to the size and channels of the output, or None.
        norm: Factory of normalisation layers.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: Triple = 1,
        downsample: nn.Module | None = None,
        norm: Norm = nn.BatchNorm3d,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = norm(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) -> (N, width, ...)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 and 1x1x1 convolutions, the last with four times the channels, and a residual connection.

    The 3x3x3 convolution has the stride (torchvision's "v1.5"). The arguments are those of `BasicBlock`.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: Triple = 1,
        downsample: nn.Module | None = None,
        norm: Norm = nn.BatchNorm3d,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = norm(width)
        self.conv3 = _conv(width, self.expansion * width, 1)
        self.bn3 = norm(self.expansion * width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) -> (N, 4 * width, ...)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(Backbone):
    """A residual network without its classifier.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: Number of blocks in each of the four stages.
        in_channels: Channels of the image.
        return_layers: Stages to return, of p2 p3 p4 p5; all by default. Stages after the last one returned are not
            built.
        norm: batch, group or frozen.
        norm_groups: Number of groups of the group norm.
        width: Channels of the 3x3x3 convolutions in the first stage; each further stage doubles them.
        stem_stride: Stride of the 7x7x7 convolution, (z, y, x).
        pool_stride: Stride of the max-pool, (z, y, x).
        stage_zstride: z stride of stages p3, p4, p5; along y and x it is 2.
        checkpointing: Recompute activations within each block in the backward pass, to save memory.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        *,
        in_channels: int = 1,
        return_layers: Sequence[str] | None = None,
        norm: str = "batch",
        norm_groups: int = 32,
        width: int = 64,
        stem_stride: Triple = 2,
        pool_stride: Triple = 2,
        stage_zstride: Sequence[int] = (2, 2, 2),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.return_layers = _stages(return_layers)
        self.checkpointing = checkpointing
        if len(stage_zstride) != len(STAGES) - 1 or min(stage_zstride) < 1:
            raise InputError("stage_zstride", " ".join(map(str, stage_zstride)), "3 whole numbers, of p3 p4 p5")
        make = norm_of(norm, norm_groups)
        self.conv1 = nn.Conv3d(in_channels, width, 7, triple(stem_stride), 3, bias=False)
        self.bn1 = make(width)
        self.maxpool = nn.MaxPool3d(3, triple(pool_stride), 1)
        self.out_channels, self.strides = {}, {}
        channels, stride = width, mul3(stem_stride, pool_stride)
        depth = STAGES.index(self.return_layers[-1]) + 1
        for i, name in enumerate(STAGES[:depth]):
            step: Vec3 = (1, 1, 1) if i == 0 else (stage_zstride[i - 1], 2, 2)
            self.add_module(f"layer{i + 1}", _stage(block, channels, width << i, layers[i], step, make))
            channels, stride = (width << i) * block.expansion, mul3(stride, step)
            if name in self.return_layers:
                self.out_channels[name], self.strides[name] = channels, stride
        self.multiple = stride
        self.num_layers = depth + 1
        self._start()

    def _start(self) -> None:
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Maps:
        """(N, in_channels, Z, Y, X) of any size -> maps; sizes that are no multiple of a stride are rounded up."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        maps: Maps = OrderedDict()
        for i in range(1, self.num_layers):
            for block in self.get_submodule(f"layer{i}").children():
                x = through(block, x, self.checkpointing)
            if STAGES[i - 1] in self.return_layers:
                maps[STAGES[i - 1]] = x
        return maps

    def layer_of(self, name: str) -> int:
        """0 for the stem, then the stage's number counted from 1."""
        first = name.partition(".")[0]
        return int(first.removeprefix("layer")) if first.startswith("layer") else 0


def _stages(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the chosen stages in order."""
    chosen = STAGES if names is None else tuple(names)
    if not chosen or not set(chosen) <= set(STAGES):
        raise InputError("return_layers", " ".join(chosen) or "nothing", f"some of {' '.join(STAGES)}")
    return tuple(name for name in STAGES if name in chosen)


def _stage(
    block: type[BasicBlock | Bottleneck], in_channels: int, width: int, count: int, stride: Vec3, norm: Norm
) -> nn.Sequential:
    """Build the blocks of one resolution; the first one changes size and channels."""
    out = width * block.expansion
    change = None
    if stride != (1, 1, 1) or in_channels != out:
        change = nn.Sequential(_conv(in_channels, out, 1, stride), norm(out))
    first = block(in_channels, width, stride, change, norm)
    return nn.Sequential(first, *(block(out, width, norm=norm) for _ in range(1, count)))


DEPTHS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


def resnet18(**options: object) -> ResNet:
    """Two basic blocks per stage: 33,160,000 parameters with one input channel. Takes the options of `ResNet`."""
    return ResNet(*DEPTHS[18], **options)  # type: ignore[arg-type]


def resnet34(**options: object) -> ResNet:
    """Basic blocks, 3 4 6 3: 63,469,632 parameters. Takes the options of `ResNet`."""
    return ResNet(*DEPTHS[34], **options)  # type: ignore[arg-type]


def resnet50(**options: object) -> ResNet:
    """Bottlenecks, 3 4 6 3: 46,155,072 parameters. Takes the options of `ResNet`."""
    return ResNet(*DEPTHS[50], **options)  # type: ignore[arg-type]


def resnet101(**options: object) -> ResNet:
    """Bottlenecks, 3 4 23 3: 85,201,216 parameters. Takes the options of `ResNet`."""
    return ResNet(*DEPTHS[101], **options)  # type: ignore[arg-type]


def create_backbone(
    *,
    in_channels: int = 1,
    resnet_depth: Literal[18, 34, 50, 101] = 50,
    resnet_width: int = 64,
    return_layers: list[str] | None = None,
    norm: Literal["batch", "group", "frozen"] = "batch",
    norm_groups: int = 32,
    stem_stride: tuple[int, int, int] = (2, 2, 2),
    pool_stride: tuple[int, int, int] = (2, 2, 2),
    stage_zstride: tuple[int, int, int] = (2, 2, 2),
    checkpointing: bool = False,
) -> ResNet:
    """Residual network with maps p2 to p5 at 1/4, 1/8, 1/16 and 1/32 of the resolution.

    Args:
        in_channels: Channels of the image.
        resnet_depth: Number of layers.
        resnet_width: Channels of the first stage; each further stage doubles them.
        return_layers: Maps to use, of p2 p3 p4 p5; stages after the last one used are not built.
        norm: Normalisation; frozen keeps the statistics of pretrained weights.
        norm_groups: Number of groups of the group norm.
        stem_stride: Stride of the first convolution, z,y,x; 1,2,2 for thick sections.
        pool_stride: Stride of the max-pool, z,y,x; 1,2,2 for thick sections.
        stage_zstride: z stride of the stages p3,p4,p5.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    if resnet_depth not in DEPTHS:
        raise InputError("resnet_depth", resnet_depth, f"one of {', '.join(map(str, DEPTHS))}")
    block, layers = DEPTHS[resnet_depth]
    return ResNet(
        block,
        layers,
        in_channels=in_channels,
        return_layers=return_layers,
        norm=norm,
        norm_groups=norm_groups,
        width=resnet_width,
        stem_stride=stem_stride,
        pool_stride=pool_stride,
        stage_zstride=stage_zstride,
        checkpointing=checkpointing,
    )
