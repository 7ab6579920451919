"""Like `aug_mip1_v2`, with black missing sections."""

from deepem.data.augment.pinky_basil import aug_mip1_v2
from deepem.data.transform import recipe

get_augmentation = recipe.variant(aug_mip1_v2.get_augmentation, value=0)
