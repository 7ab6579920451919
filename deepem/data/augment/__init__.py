"""Plug-ins: each file composes augmentations of `deepem.data.transform` into a recipe (`get_augmentation`)."""
