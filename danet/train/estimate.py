"""Estimate the memory of a training step without running it.

Commands: `danet train RECIPE --dry-run`, `danet recipes`. The network runs on fake tensors, which have shapes but no
memory.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from danet.model.baselines import AnyNetwork, build_network
from danet.model.criterion import REGION_LOSSES, output_loss
from danet.model.dranet import AttentionNetwork
from danet.model.loss import multi_loss
from danet.recipes import Recipe

_IMAGES = 2  # in training, batch normalization needs more than one value per channel, even for features of one pixel
_SIDE = 16  # of the image on which the losses of regions are measured


class Estimate(NamedTuple):
    """The cost of a training step.

    Args:
        parameters: number of parameters of the network.
        backbone: number of parameters of the backbone.
        grid: height and width of the feature map of a crop; their product is N.
        fixed: bytes of weights, gradients, momentum and moving average.
        largest: shape of the largest tensor kept for the backward pass, without the batch dimension.
        per_image: bytes per image of the tensors kept for the backward pass, plus the gradient of the largest one.
    """

    parameters: int
    backbone: int
    grid: tuple[int, int]
    fixed: int
    largest: tuple[int, ...]
    per_image: int

    def bytes(self, images: int) -> int:
        """Return the bytes of a step with this many images on one device.

        Buffers of the libraries are not included; on a GPU they take some hundred MB.
        """
        return self.fixed + images * self.per_image


def estimate(recipe: Recipe, num_classes: int, in_channels: int = 3) -> Estimate:
    """Return the cost of a recipe's network on its training crops.

    Args:
        recipe: what to train.
        num_classes: number of classes.
        in_channels: number of image channels.

    Raises:
        InputError: the network cannot be built.
    """
    arguments = asdict(recipe.network) | {"pretrained": False, "num_classes": num_classes, "in_channels": in_channels}
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=recipe.optim.precision == "bfloat16"):
        network = build_network(**arguments).train()
        kept, largest = _kept_bytes(network, recipe, in_channels, _IMAGES)
        with torch.no_grad():
            stages = network.backbone(torch.zeros(_IMAGES, in_channels, *recipe.data.crop))
            grid = (network.split(stages)[0] if isinstance(network, AttentionNetwork) else stages[-1]).shape[-2:]
    kept += _IMAGES * _region_bytes(recipe, num_classes)
    parameters = sum(p.numel() for p in network.parameters())
    moments = 2 if recipe.optim.algorithm == "adamw" else 1
    copies = 2 + moments + bool(recipe.optim.ema)  # float32 weights, gradients, moments and moving average
    return Estimate(
        parameters,
        sum(p.numel() for p in network.backbone.parameters()),
        (grid[0], grid[1]),
        4 * copies * parameters,
        largest,
        kept // _IMAGES,
    )


def _kept_bytes(network: AnyNetwork, recipe: Recipe, channels: int, images: int) -> tuple[int, tuple[int, ...]]:
    """Return the bytes kept for the backward pass, counting the largest tensor twice, and that tensor's shape.

    The largest tensor counts twice because its gradient has the same size. The shape is without the batch dimension.
    The losses of regions are left out: their tensors have as many pixels as are labeled.
    """
    tensors = torch.zeros(images, channels, *recipe.data.crop)
    labels = torch.zeros(images, *recipe.data.crop, dtype=torch.int64)
    pixelwise = asdict(recipe.criterion) | dict.fromkeys(REGION_LOSSES, 0.0)
    with _noted(network.state_dict(keep_vars=True).values()) as kept:
        multi_loss(network(tensors, **recipe.forward_options), labels, asdict(recipe.loss), criterion=pixelwise)
    largest = max(kept, key=lambda tensor: tensor.untyped_storage().nbytes())
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept)
    return total + largest.untyped_storage().nbytes(), tuple(largest.shape[1:])


def _region_bytes(recipe: Recipe, classes: int) -> int:
    """Return the bytes per image that Dice and Lovasz-Softmax keep for the backward pass if all classes occur."""
    logits = torch.zeros(1, classes, _SIDE, _SIDE, requires_grad=True)
    labels = (torch.arange(_SIDE**2) % classes).view(1, _SIDE, _SIDE)
    kept = []
    for factor in (1.0, 0.0):
        with _noted([logits]) as tensors:
            dice, lovasz = factor * recipe.criterion.dice, factor * recipe.criterion.lovasz
            output_loss(logits, labels, dice=dice, lovasz=lovasz)
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in tensors))
    return (kept[0] - kept[1]) * math.prod(recipe.data.crop) // _SIDE**2


@contextmanager
def _noted(known: Iterable[Tensor]) -> Iterator[Collection[Tensor]]:
    """Note the tensors that are kept for a backward pass, each storage once; `known` ones are left out."""
    addresses = {tensor.untyped_storage()._cdata for tensor in known}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if (address := tensor.untyped_storage()._cdata) not in addresses:
            kept[address] = tensor  # kept alive, because the address of a freed storage is used again
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept.values()
