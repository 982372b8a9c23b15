"""What a training step will cost, before it runs: the network is built and stepped with fake tensors, which have shapes
and no memory. Commands: `danet train RECIPE --dry-run`, `danet recipes`.
"""

from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from danet.model.baselines import Baseline, build_network
from danet.model.danet import DANet
from danet.model.loss import multi_loss
from danet.recipes import Recipe

_IMAGES = 2  # batch normalization in training wants more than one where the features are one pixel


class Estimate(NamedTuple):
    """The cost of a training step.

    Args:
        parameters: of the whole network.
        backbone: parameters of the backbone among them.
        grid: height and width of the features of a crop; their product is N.
        fixed: bytes of weights, gradients, momentum and moving average.
        largest: shape, but for the batch, of the largest tensor that it keeps.
        per_image: bytes that the forward pass keeps for the backward pass, and the largest tensor beside them.
    """

    parameters: int
    backbone: int
    grid: tuple[int, int]
    fixed: int
    largest: tuple[int, ...]
    per_image: int

    def bytes(self, images: int) -> int:
        """Of a step of so many images on one device. What a library keeps for itself, some hundred MB on a GPU,
        comes on top.
        """
        return self.fixed + images * self.per_image


def estimate(recipe: Recipe, num_classes: int, in_channels: int = 3) -> Estimate:
    """The cost of the recipe's network on crops of its size.

    Raises:
        InputError: a network that cannot be built.
    """
    arguments = asdict(recipe.network) | {"pretrained": False, "num_classes": num_classes, "in_channels": in_channels}
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=recipe.optim.precision == "bf16"):
        network = build_network(**arguments).train()
        kept, largest = _kept(network, recipe, in_channels, _IMAGES)
        with torch.no_grad():
            grid = network.backbone(torch.zeros(1, in_channels, *recipe.data.crop))[-1].shape[-2:]
    parameters = sum(p.numel() for p in network.parameters())
    copies = 4 if recipe.optim.ema else 3  # weights, gradients, momentum, moving average: float32
    return Estimate(
        parameters,
        sum(p.numel() for p in network.backbone.parameters()),
        (grid[0], grid[1]),
        4 * copies * parameters,
        largest,
        kept // _IMAGES,
    )


def _kept(network: DANet | Baseline, recipe: Recipe, channels: int, images: int) -> tuple[int, tuple[int, ...]]:
    """Bytes of the distinct tensors that a step of so many images keeps, and of the largest of them once more, the
    gradient that meets it; and the shape of the largest, without the batch.
    """
    kept: dict[int, Tensor] = {}
    own = {tensor.untyped_storage()._cdata for tensor in network.state_dict(keep_vars=True).values()}

    def note(tensor: Tensor) -> Tensor:
        if (address := tensor.untyped_storage()._cdata) not in own:
            kept[address] = tensor  # alive: a storage that is freed would give its address to the next
        return tensor

    tensors = torch.zeros(images, channels, *recipe.data.crop)
    labels = torch.zeros(images, *recipe.data.crop, dtype=torch.int64)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        multi_loss(network(tensors), labels, recipe.loss)
    sizes = {address: tensor.untyped_storage().nbytes() for address, tensor in kept.items()}
    largest = max(sizes, key=sizes.__getitem__)
    return sum(sizes.values()) + sizes[largest], tuple(kept[largest].shape[1:])
