"""Hiera, large."""

from deepem.models.backbones import hiera
from deepem.models.backbones.parts.base import fixed

create_backbone = fixed(hiera.create_backbone, hiera_size="l")
