"""Describe a run without training: settings, data, steps, learning rate, network and memory.

Command: `danet train RECIPE --dry-run`.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import yaml

from danet import recipes
from danet.data import registry
from danet.data.cache import plan_cache
from danet.data.class_weights import check_labeled, class_weights, count_classes
from danet.data.classes import Classes
from danet.data.images.channels import RGB, Bands
from danet.errors import InputError
from danet.files import check_writable, format_bytes
from danet.model.device import resolve_device
from danet.recipes import Recipe
from danet.train import run_folder
from danet.train.adapt import calibratable, can_use_bundled, missing_imagenet, needs_imagenet
from danet.train.build import build, check_bands, load_split, with_network_of
from danet.train.estimate import Estimate, estimate
from danet.train.pretrained import find_pretrained
from danet.train.run_folder import RunOptions
from danet.train.scale import ObjectScale, check_scales, measure, with_size
from danet.train.schedule import learning_rate
from danet.train.skipped import SkippedImages
from danet.train.trackers import require_tracker


class _DataFacts(NamedTuple):
    """A recipe's data: read from its files, or as published if no root is given.

    Args:
        classes: the classes.
        bands: how images are read.
        train: number of training images.
        val: number of validation images.
        weights: class weights in the loss; None: all are 1.
        scale: sizes of the images and of what is in them; None if they are not known or not needed.
        published: whether the numbers are the published ones.
    """

    classes: Classes
    bands: Bands
    train: int
    val: int
    weights: tuple[float, ...] | None
    scale: ObjectScale | None
    published: bool


def describe(recipe: Recipe, options: RunOptions | None = None, processes: int = 1) -> str:
    """Return a description of a run, and check everything that could stop it at its start.

    If the recipe has a data root, its images are counted, and for class weights all labels are read. Otherwise the
    published numbers of the dataset are used.

    Args:
        recipe: what to train.
        options: folder, device, cache and weights to check, without changing anything; None: check none of them.
        processes: number of training processes.

    Raises:
        InputError: a problem with the recipe, the data, the network, or one of the options.
    """
    recipes.check(recipe, processes)
    with tempfile.TemporaryDirectory() as scratch:
        data = _inspect_data(recipe, options, SkippedImages(Path(scratch), recipe.skip_bad))
    recipe = with_size(recipe, data.scale)
    missing = None if options is None else missing_imagenet(recipe, options)
    if options is not None and missing is not None and processes == 1 and can_use_bundled(recipe, data.bands):
        options = replace(options, initial_weights=Path("default"))
    if options is not None and options.initial_weights is not None:
        recipe, _ = with_network_of(recipe, options.initial_weights)
    recipe = calibratable(recipe)
    check_scales(recipe, data.scale)
    check_bands(recipe, data.bands)
    if options is not None:
        _check_options(recipe, options, data)
    cost = estimate(recipe, len(data.classes), data.bands.count)
    optim, size, (height, width) = recipe.optim, recipe.data.size, recipe.data.crop
    per_epoch = max(1, data.train // recipe.data.batch)
    steps = optim.steps or optim.epochs * per_epoch
    at_once = recipe.data.batch // (processes * optim.accumulate)
    source = " (published numbers; data.root is not set)" if data.published else ""
    lines = [
        yaml.safe_dump(recipes.to_dict(recipe), sort_keys=False).rstrip(),
        "",
        f"data           {data.train} training images, {data.val} validation images, {len(data.classes)} classes, "
        f"{data.bands.count} channels{source}",
        *([f"size           {data.scale.describe(size)}"] if data.scale is not None else []),
        *([f"class weights  {' '.join(f'{weight:.3g}' for weight in data.weights)}"] if data.weights else []),
        f"steps          {steps} of {recipe.data.batch} images, {per_epoch} per epoch: {steps / per_epoch:.1f} epochs",
        f"learning rate  {_rates(recipe, steps)}; for the head times {optim.head_lr_factor:g}",
        f"network        {cost.parameters:,} parameters, of which {cost.backbone:,} in the backbone",
        f"features       {cost.grid[0]} x {cost.grid[1]} for a crop of {height} x {width}: "
        f"N = {cost.grid[0] * cost.grid[1]:,} positions",
        f"memory         {_memory(cost, at_once)}",
        *([] if options is None else [f"weights        {_weights(recipe, options, data, missing)}"]),
    ]
    return "\n".join(lines)


def _weights(recipe: Recipe, options: RunOptions, data: _DataFacts, missing: InputError | None) -> str:
    """Return which weights the run starts from.

    Without ImageNet weights that it needs, it cannot start: that is an error, unless it cannot start anyway because
    there are no data.
    """
    if missing is not None and options.initial_weights is not None:
        return f"bundled, because {missing.what}"
    if missing is not None:
        if not data.published:
            raise missing
        return f"missing: {missing.what}; {missing.remedy}"
    if options.initial_weights is not None:
        return f"all from {options.initial_weights}"
    if options.backbone_weights is not None:
        return f"of the backbone from {options.backbone_weights}"
    if not needs_imagenet(recipe, options):
        return "random"
    return f"of ImageNet, {find_pretrained(recipe.network.backbone)}"


def _memory(cost: Estimate, images: int) -> str:
    return (
        f"about {format_bytes(cost.bytes(images))} per device for {images} images at a time ({format_bytes(cost.fixed)}"
        f" + {format_bytes(cost.per_image)} per image), plus buffers of the libraries"
    )


def _inspect_data(recipe: Recipe, options: RunOptions | None, skipped: SkippedImages) -> _DataFacts:
    name, root = recipe.data.dataset, recipe.data.root
    dataset = registry.DATASETS.get(name)
    without_files = root is None and recipe.data.fold is None
    if without_files and dataset is not None and dataset.classes is not None and not dataset.synthetic:
        train, val = (dataset.counts.get(split) for split in (recipe.data.train_split, recipe.data.val_split))
        if train is not None and val is not None:
            return _DataFacts(dataset.classes, RGB, train, val, None, None, published=True)
    train, val = load_split(recipe, "train_split"), load_split(recipe, "val_split")
    if options is not None and options.cache is not None:
        plan_cache(train, options.cache, skipped.add)
    check_labeled(train)
    counts = None if recipe.class_weights == "none" else count_classes(train, skipped.add)
    weights = None if counts is None else class_weights(recipe.class_weights, counts)
    scale = None if recipe.data.size is None else measure(train)
    return _DataFacts(train.classes, train.bands, len(train), len(val), weights, scale, published=False)


def _check_options(recipe: Recipe, options: RunOptions, data: _DataFacts) -> None:
    if check_writable(options.folder) == options.folder:
        run_folder.check_unused(options.folder, recipe)
    resolve_device(options.device)
    for name in options.trackers:
        require_tracker(name)
    if options.backbone_weights is not None or options.initial_weights is not None or recipe.fine_tunes:
        build(recipe, data.classes, options.backbone_weights, options.initial_weights, bands=data.bands)


def _rates(recipe: Recipe, steps: int) -> str:
    rates = [learning_rate(recipe.optim, step, steps) for step in (0, steps // 2, steps - 1)]
    return "{:.3g} at the first step, {:.3g} halfway, {:.3g} at the last".format(*rates)
