"""Like `aug_v2`, but validation also has grey-value changes and misaligned, missing and blurry sections."""

from deepem.data.augment.kasthuri11 import aug_v2
from deepem.data.transform import recipe

get_augmentation = recipe.variant(aug_v2.get_augmentation, in_validation=True)
