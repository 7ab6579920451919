"""Tables of what replaced the programs, flags, modules and functions of the public DeepEM."""

from __future__ import annotations

from textwrap import fill

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
    "flip": "accepted, without effect: every recipe flips and rotates, --augment flip_rotate does nothing else",
    "gpu_ids": "the same; --batch_size is the number of samples over all of them",
    "parallel": "accepted, without effect: reading and writing are threads beside the network",
    "pretrain": "the same; in forward a switch, as before",
    "resolution": "the same; taken from the input's info if not given",
}
"""Flags that have another name or another meaning here, or are written differently."""

SAME = {
    "train": "exp_name data_dir data model sampler augment modifier train_ids val_ids train_prob val_prob max_iter "
    "batch_size num_workers eval_intv eval_iter avgs_intv imgs_intv chkpt_intv chkpt_num no_eval loss size_average "
    "margin0 margin1 inverse class_balancing default_aux optim lr betas eps amsgrad momentum inputsz outputsz long "
    "edges aff bdr syn psd mit mye fld blv glia blv_num_channels test",
    "forward": "exp_name chkpt_num gpu_id cpu model no_eval inputsz outputsz force_crop aff long bdr syn psd mit mye "
    "fld blv glia blv_num_channels test_aug variance temperature gs_input gs_input_mask gs_input_norm in_mip cache "
    "begin end center size gs_output tags keywords downsample offset chunk_size data_dir data_names input_name "
    "out_prefix out_tag overlap stride mirror crop_border crop_center blend bump mask_edges dummy dummy_inputsz",
    "models": "depth width group act",
    "recipes": "recompute grayscale warping misalign interp missing blur box mip lost random",
    "datasets": "glia_mask",
}
"""Who takes them -> flags that keep their names, meanings and defaults. Those of models, recipes and datasets are there
if the chosen module declares them."""

MODULES = {
    "dataprovider3": "deepem.data.provider, and deepem.data.emio for dataprovider3.emio",
    "augmentor": "deepem.data.transform",
    "emvision": "deepem.models.emvision",
}

FUNCTIONS = {
    "load_data(data_dir, data_ids, **param)": "the same; keyword-only parameters become flags (README, Add a dataset)",
    "load_data(opt)": "deepem.build.samplers.create_samplers, deepem.data.loader.batches",
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

AUGMENTATIONS = frozenset({"grayscale", "warping", "interp", "lost", "random", "misalign", "missing", "blur", "box"})
"""Flags that switch on an augmentation, if the recipe contains it."""


def page() -> str:
    """Format all tables as text for the screen."""
    parts = ["What took whose place from the public DeepEM.\n"]
    flags = {f"--{name}": words for name, words in FLAGS.items()}
    same = {f"of {who}": fill(names, 100, subsequent_indent=" " * 15) for who, names in SAME.items()}
    tables = {"programs": PROGRAMS, "flags that changed": flags, "flags that are the same": same}
    for title, table in (tables | {"imports": MODULES, "functions": FUNCTIONS}).items():
        width = max(map(len, table)) + 2
        parts.append(f"{title}\n" + "".join(f"  {old:<{width}}{new}\n" for old, new in table.items()))
    parts.append(
        "Public checkpoints are read: deepem forward --model rsunet --fov 20,128,128 --width 16 32 ... --aff\n"
    )
    return "\n".join(parts)
