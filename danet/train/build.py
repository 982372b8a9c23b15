"""A recipe's network with its initial weights, and its card. Used by `train.loop`."""

from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from danet import recipes
from danet.data.classes import Classes
from danet.data.images.channels import RGB, Bands
from danet.errors import InputError
from danet.model.backbone import load_backbone, normalization
from danet.model.baselines import Baseline, build_network
from danet.model.danet import DANet
from danet.recipes import Recipe
from danet.weights import file as weights_file


def build(
    recipe: Recipe,
    classes: Classes,
    backbone_weights: Path | None = None,
    initial_weights: Path | None = None,
    fresh: bool = True,
    bands: Bands = RGB,
) -> tuple[DANet | Baseline, weights_file.Card]:
    """The recipe's network with its initial weights, and its card. Not `fresh`: the weights are about to be replaced,
    so none are fetched.

    Raises:
        InputError: a network that cannot be built; weights that are missing, cannot be read, or are of another network.
    """
    if recipe.fine_tunes and fresh and initial_weights is None:
        what = f"missing: this recipe begins with the weights of {recipe.fine_tunes}"
        raise InputError("--initial-weights", what, "give that run's best.safetensors, or begin anew: --fine-tunes ''")
    torch.manual_seed(recipe.seed)
    arguments = asdict(recipe.network)
    fetch = arguments.pop("pretrained") and fresh and backbone_weights is None and initial_weights is None
    arguments |= {"num_classes": len(classes), "in_channels": bands.count}
    network = build_network(**arguments, pretrained=fetch)
    if backbone_weights is not None and fresh:
        state = {key: tensor.float() for key, tensor in _read_tensors(backbone_weights).items()}
        load_backbone(network.backbone, recipe.network.backbone, state, str(backbone_weights))
    if initial_weights is not None and fresh:
        weights_file.load_into(network, initial_weights)
    mean, std = normalization(recipe.network.backbone, bands.count)
    return network, weights_file.Card(
        arguments, classes, mean, std, recipe.data.size, recipes.to_dict(recipe), recipe.data.dataset, white=bands.white
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            path, f"cannot be read as .safetensors ({error})", "give the backbone's weights under timm's keys"
        ) from error
