"""ResNet-18 in 3-D: two basic blocks in each of four stages."""

from deepem.models.backbones import resnet
from deepem.models.backbones.parts.base import fixed

create_backbone = fixed(resnet.create_backbone, resnet_depth=18)
