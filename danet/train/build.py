"""Build a recipe's network with its initial weights, and its card."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from danet import recipes
from danet.data import registry
from danet.data.classes import Classes
from danet.data.folds import choose_fold
from danet.data.images.channels import RGB, Bands
from danet.data.samples import Samples
from danet.errors import InputError, missing_file
from danet.model.backbone import load_backbone, normalization
from danet.model.baselines import AnyNetwork, build_network
from danet.recipes import Network, Recipe
from danet.train.pretrained import find_pretrained
from danet.weights import file as weights_file
from danet.weights.card import Card, peek

_OF_INITIAL = "that of the initial weights: "


def build(
    recipe: Recipe,
    classes: Classes,
    backbone_weights: Path | None = None,
    initial_weights: Path | None = None,
    fresh: bool = True,
    bands: Bands = RGB,
) -> tuple[AnyNetwork, weights_file.Card]:
    """Return a recipe's network with its initial weights, and the card to save it with.

    Args:
        recipe: what to train.
        classes: the classes to predict.
        backbone_weights: see `RunOptions`.
        initial_weights: see `RunOptions`.
        fresh: load initial weights; False if a checkpoint is about to replace them.
        bands: how the images are read.

    Raises:
        InputError: the network cannot be built, or its weights are missing, unreadable or of another network.
    """
    if recipe.fine_tunes and fresh and initial_weights is None:
        what = f"missing, but this recipe fine-tunes the weights of {recipe.fine_tunes}"
        remedy = "specify that run's best.safetensors, or set `fine_tunes` to '' to start without them"
        raise InputError("initial_weights", what, remedy)
    check_bands(recipe, bands)
    torch.manual_seed(recipe.seed)
    arguments = asdict(recipe.network)
    download = arguments.pop("pretrained") and fresh and backbone_weights is None and initial_weights is None
    arguments |= {"num_classes": len(classes), "in_channels": bands.count}
    if download:
        find_pretrained(recipe.network.backbone)
    network = build_network(**arguments, pretrained=download)
    if backbone_weights is not None and fresh:
        state = {key: tensor.float() for key, tensor in _read_tensors(backbone_weights).items()}
        load_backbone(network.backbone, recipe.network.backbone, state, str(backbone_weights))
    given = None
    if initial_weights is not None and fresh:
        weights_file.load_into(network, arguments, classes, initial_weights)
        given = peek(initial_weights)
    mean, std = _normalization(recipe, bands.count)
    assert recipe.data.size != "auto"
    return network, weights_file.Card(
        arguments,
        classes,
        mean,
        std,
        recipe.data.size,
        recipes.to_dict(recipe),
        recipe.data.dataset,
        license=_inherited(given),
        white=bands.white,
        scale_rule="size",
    )


def _inherited(initial: Card | None) -> str:
    """Return the license of weights that start from others with this card."""
    if initial is None or not initial.license:
        return ""
    return _OF_INITIAL + initial.license.removeprefix(_OF_INITIAL)


def with_network_of(recipe: Recipe, weights: Path) -> tuple[Recipe, list[str]]:
    """Return a recipe that can start from given weights, and the fields that had to change for it.

    The backbone becomes that of the weights, because others with the same tensors may pad or normalize differently. The
    rest of the network follows if their tensors do not fit the recipe's network, except that a decoder may be finer
    than theirs. The normalization becomes that of the weights unless the recipe states one.

    Args:
        recipe: the recipe.
        weights: a weights file, or "default".

    Raises:
        InputError: not a weights file.
    """
    path = weights_file.resolve(weights)
    tensors, card = weights_file.read(path)
    own: dict[str, Any] = asdict(recipe.network) | {"num_classes": len(card.classes), "in_channels": len(card.mean)}
    del own["pretrained"]
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in build_network(**own).state_dict().items()}
    changes: dict[str, dict[str, Any]] = {"network": {}, "data": {}}
    stored = asdict(Network()) | card.network  # older versions did not write all arguments
    names = ["backbone"]
    if shapes != {key: tensor.shape for key, tensor in tensors.items()}:
        names = [field.name for field in fields(Network) if field.name != "pretrained"]
        if stored["decoder"] and own["decoder"] and own["decoder_stride"] < stored["decoder_stride"]:
            names.remove("decoder_stride")
    changes["network"] = {key: stored[key] for key in names if stored[key] != own[key]}
    if recipe.data.mean is None and recipe.data.std is None:
        usual = normalization(stored["backbone"], len(card.mean))
        changes["data"] = {} if (card.mean, card.std) == usual else {"mean": card.mean, "std": card.std}
    changed = replace(
        recipe,
        network=replace(recipe.network, **changes["network"]),
        data=replace(recipe.data, **changes["data"]),
    )
    return changed, [f"{part}.{key}" for part, values in changes.items() for key in values]


def load_split(recipe: Recipe, field: Literal["train_split", "val_split"], root: Path | None = None) -> Samples:
    """Return the samples of a recipe's split, or with `data.fold` those of a fold of its training split.

    Args:
        recipe: with the dataset, its folder and the names of the splits.
        field: of `recipe.data`.
        root: another folder.

    Raises:
        InputError: see `registry.load` and `choose_fold`; about the split, it names the field.
    """
    if recipe.data.fold is None:
        return _load_split(recipe, field, root)
    index, count = recipes.parse_fold(recipe.data.fold)
    return choose_fold(_load_split(recipe, "train_split", root), index, count, validation=field == "val_split")


def _load_split(recipe: Recipe, field: Literal["train_split", "val_split"], root: Path | None) -> Samples:
    data = recipe.data
    try:
        return registry.load(data.dataset, root or data.root, getattr(data, field))
    except InputError as error:
        where = f"data.{field}" if error.where == "split" else error.where
        raise InputError(where, error.what, error.remedy.replace("`split`", f"`data.{field}`")) from error


def check_bands(recipe: Recipe, bands: Bands) -> None:
    """Check that a recipe's settings fit the bands of the images.

    Raises:
        InputError: `data.degrade` for other images than RGB; `data.mean` or `data.std` of another number of bands.
    """
    if recipe.data.degrade and bands != RGB:
        raise InputError("data.degrade", "works on RGB images only", "set it to 0 for images with other bands")
    for name, values in (("mean", recipe.data.mean), ("std", recipe.data.std)):
        if values is not None and len(values) != bands.count:
            what = f"has {len(values)} values, but images have {bands.count} bands"
            raise InputError(f"data.{name}", what, "specify a value for each band")


def _normalization(recipe: Recipe, bands: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the recipe's mean and standard deviation, or those of the backbone's ImageNet weights."""
    mean, std = normalization(recipe.network.backbone, bands)
    return recipe.data.mean or mean, recipe.data.std or std


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise missing_file(path)
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise weights_file.not_safetensors(path) from error
