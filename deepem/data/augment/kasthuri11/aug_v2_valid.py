"""As `aug_v2`, with changes of grey values, misaligned, missing and blurry sections in validation too."""

from deepem.data.augment.kasthuri11 import aug_v2
from deepem.data.transform import recipe

get_augmentation = recipe.variant(aug_v2.get_augmentation, in_validation=True)
