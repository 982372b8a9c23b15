"""Everything about a run before it runs: settings, network, steps, learning rate, memory. Command: `danet train RECIPE
--dry-run`.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from danet import recipes
from danet.data import registry
from danet.data.cache import plan_cache
from danet.data.class_weights import check_labeled, class_weights, count_classes
from danet.data.classes import Classes
from danet.data.images.channels import RGB, Bands
from danet.files import check_writable, format_bytes
from danet.model.device import resolve_device
from danet.recipes import Recipe
from danet.train import run_folder
from danet.train.build import build
from danet.train.estimate import Estimate, estimate
from danet.train.quarantine import Quarantine
from danet.train.schedule import learning_rate

if TYPE_CHECKING:
    from danet.train.loop import Where


class _Set(NamedTuple):
    """What is known of a dataset: from its files, or, where no root is given, from its paper."""

    classes: Classes
    bands: Bands
    train: int
    val: int
    weights: tuple[float, ...] | None
    read: bool


def describe(recipe: Recipe, where: "Where | None" = None, processes: int = 1) -> str:
    """The text. Where the recipe names a data root its files are counted (and, for class weights, their labels read),
    else a published dataset's own numbers are taken.

    Args:
        where: the run's folder, device, cache and weights, looked at and left as they are; None: nothing of them.

    Raises:
        InputError: what would end the run at its start: the recipe, the data, the network; the folder, the device, the
            weights.
    """
    recipes.check(recipe, processes)
    with tempfile.TemporaryDirectory() as scratch:
        found = _look_at(recipe, where, Quarantine(Path(scratch), recipe.skip_bad))
    if where is not None:
        _check(recipe, where, found)
    cost = estimate(recipe, len(found.classes), found.bands.count)
    per_epoch = max(1, found.train // recipe.data.batch)
    steps = recipe.optim.steps or recipe.optim.epochs * per_epoch
    at_once = recipe.data.batch // (processes * recipe.optim.accumulate)
    lines = [
        yaml.safe_dump(recipes.to_dict(recipe), sort_keys=False).rstrip(),
        "",
        f"dataset       {found.train} images to train on, {found.val} to validate on, {len(found.classes)} classes, "
        f"{found.bands.count} channels" + ("" if found.read else " (as published: no --data.root given)"),
        *([f"class weights  {' '.join(f'{w:.3g}' for w in found.weights)}"] if found.weights else []),
        f"steps          {steps} of {recipe.data.batch} images, {per_epoch} an epoch: {steps / per_epoch:.1f} epochs",
        f"learning rate  {_rates(recipe, steps)}; the head's {recipe.optim.head_lr_factor:g} times that",
        f"network        {cost.parameters:,} parameters, {cost.backbone:,} of them the backbone's",
        f"features       {cost.grid[0]} x {cost.grid[1]} for a crop of {recipe.data.crop[0]} x {recipe.data.crop[1]}: "
        f"N = {cost.grid[0] * cost.grid[1]:,} positions",
        f"memory         {memory(cost, at_once)}",
    ]
    return "\n".join(lines)


def memory(cost: Estimate, images: int) -> str:
    """The estimate in words, for so many images at once on a device."""
    return (
        f"about {format_bytes(cost.bytes(images))} on a device for {images} images at once: {format_bytes(cost.fixed)} "
        f"and {format_bytes(cost.per_image)} an image; what the library keeps for itself comes on top"
    )


def _look_at(recipe: Recipe, where: "Where | None", quarantine: Quarantine) -> _Set:
    name, root = recipe.data.dataset, recipe.data.root
    dataset = registry.DATASETS.get(name)
    if root is None and dataset is not None and dataset.classes is not None and not dataset.synthetic:
        train, val = (dataset.counts.get(split) for split in (recipe.data.train_split, recipe.data.val_split))
        if train is not None and val is not None:
            return _Set(dataset.classes, RGB, train, val, None, read=False)
    train, val = (registry.load(name, root, split) for split in (recipe.data.train_split, recipe.data.val_split))
    if where is not None and where.cache is not None:
        plan_cache(train, where.cache, quarantine.note)
    check_labeled(train)
    counted = None if recipe.class_weights == "none" else count_classes(train, quarantine.note)
    weights = None if counted is None else class_weights(recipe.class_weights, counted)
    return _Set(train.classes, train.bands, len(train), len(val), weights, read=True)


def _check(recipe: Recipe, where: "Where", found: _Set) -> None:
    if check_writable(where.folder) == where.folder:
        run_folder.check_free(where.folder, recipe)
    resolve_device(where.device)
    if where.backbone_weights is not None or where.initial_weights is not None or recipe.fine_tunes:
        build(recipe, found.classes, where.backbone_weights, where.initial_weights, bands=found.bands)


def _rates(recipe: Recipe, steps: int) -> str:
    rates = [learning_rate(recipe.optim, step, steps) for step in (0, steps // 2, steps - 1)]
    return "{:.3g} at the first step, {:.3g} half way, {:.3g} at the last".format(*rates)
