"""Tables of what replaced the programs, flags, modules and functions of the public DeepEM."""

from __future__ import annotations

PROGRAMS = {
    "deepem/train/run.py": "the same file, or deepem train",
    "deepem/test/run.py": "deepem forward (deepem/test/forward.py)",
    "deepem/test/forward.py": "the same file, or deepem forward",
}

FLAGS = {
    "autotune": "--cudnn_benchmark, which is on",
    "no_autotune": "accepted, without effect: in the public code it did the opposite of its name",
    "base_lr": "--lr",
    "margin": "--margin0 and --margin1",
    "fov": "the same, with commas: --fov 20,128,128",
    "warm_up": "the same: logs each of the first N steps; --lr_warmup raises the learning rate",
    "recompute": "--checkpointing of the models that have it",
    "gpu_ids": "the same; --batch_size is the number of samples over all of them",
    "parallel": "accepted, without effect: reading and writing are threads beside the network",
    "glia_mask": "a mask of the dataset: <label>_msk",
    "pretrain": "the same; in forward a switch, as before",
}
"""Flags that have another name or are written differently here. All others are the same, with the same defaults."""

MODULES = {
    "dataprovider3": "deepem.data.provider, and deepem.data.emio for dataprovider3.emio",
    "augmentor": "deepem.data.transform",
    "emvision": "deepem.models.emvision",
}

FUNCTIONS = {
    "load_data(data_dir, data_ids, **param)": "the same; keyword-only parameters become flags (README, Add a dataset)",
    "get_augmentation(is_train, **opt)": "the same; keyword-only parameters become flags",
    "create_model(opt)": "create_model(*, in_spec, out_spec, ...) -> {name: logits}",
    "Sampler(data, spec, is_train, aug, prob)": "the same; called with a numpy Generator; one sampler for all tasks",
    "train(opt)": "deepem train; deepem.train.session.train(options, preemption)",
    "load_model(opt)": "deepem.load(path): an export folder or a checkpoint",
    "load_chkpt(model, path, num)": "deepem.utils.checkpoint.read(path), load_weights(model, weights, path)",
    "forward(model, sample, opt)": "deepem.test.forward.predict(model, image, patch_size=...)",
    "ForwardScanner(dataset, scan_spec)": "deepem.test.forward.predict(..., overlap=, blend=, bump=)",
    "make_mask(patch_size, overlap)": "the same, in deepem.test.mask",
}

AUGMENTATIONS = frozenset(
    {"flip", "grayscale", "warping", "interp", "lost", "random", "misalign", "missing", "blur", "box"}
)
"""Flags that switch on an augmentation, if the recipe contains it."""


def page() -> str:
    """Format all tables as text for the screen."""
    parts = ["What took whose place from the public DeepEM. Flags that are not listed are the same.\n"]
    flags = {f"--{name}": words for name, words in FLAGS.items()}
    for title, table in (("programs", PROGRAMS), ("flags", flags), ("imports", MODULES), ("functions", FUNCTIONS)):
        width = max(map(len, table)) + 2
        parts.append(f"{title}\n" + "".join(f"  {old:<{width}}{new}\n" for old, new in table.items()))
    parts.append(
        "Public checkpoints are read: deepem forward --model rsunet --fov 20,128,128 --width 16 32 ... --aff\n"
    )
    return "\n".join(parts)
