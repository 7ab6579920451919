"""Like `aug_v2_valid`, but when a section slips, its label slips too."""

from deepem.data.augment.kasthuri11 import aug_v2
from deepem.data.transform import recipe

get_augmentation = recipe.variant(aug_v2.get_augmentation, in_validation=True, interp=False)
