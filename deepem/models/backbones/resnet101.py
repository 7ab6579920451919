"""ResNet-101 in 3-D: stages of 3, 4, 23 and 3 bottlenecks."""

from deepem.models.backbones import resnet
from deepem.models.backbones.parts.base import fixed

create_backbone = fixed(resnet.create_backbone, resnet_depth=101)
