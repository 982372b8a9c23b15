"""Estimate the memory of a training step without running it.

Commands: `danet train RECIPE --dry-run`, `danet recipes`. The network runs on fake tensors, which have shapes but no
memory.
"""

from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from danet.model.baselines import AnyNetwork, build_network
from danet.model.dranet import AttentionNetwork
from danet.model.loss import multi_loss
from danet.recipes import Recipe

_IMAGES = 2  # in training, batch normalization needs more than one value per channel, even for features of one pixel


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
            stages = network.backbone(torch.zeros(1, in_channels, *recipe.data.crop))
            grid = (network.split(stages)[0] if isinstance(network, AttentionNetwork) else stages[-1]).shape[-2:]
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
    """
    kept: dict[int, Tensor] = {}
    weights = {tensor.untyped_storage()._cdata for tensor in network.state_dict(keep_vars=True).values()}

    def note(tensor: Tensor) -> Tensor:
        if (address := tensor.untyped_storage()._cdata) not in weights:
            kept[address] = tensor  # kept alive, because the address of a freed storage is used again
        return tensor

    tensors = torch.zeros(images, channels, *recipe.data.crop)
    labels = torch.zeros(images, *recipe.data.crop, dtype=torch.int64)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        options = {"attention": True} if recipe.supervises_attention else {}
        multi_loss(network(tensors, **options), labels, asdict(recipe.loss))
    sizes = {address: tensor.untyped_storage().nbytes() for address, tensor in kept.items()}
    largest = max(sizes, key=sizes.__getitem__)
    return sum(sizes.values()) + sizes[largest], tuple(kept[largest].shape[1:])
