"""The attention of one image: where pixels attend, what channels respond to, and what each module changes.

Section 4.2 of the paper, "Visualization of Attention Module". Used by `danet look`, `danet serve` and
`Predictor.attention`. Positions are those of the feature grid, h x w = N. Position (row i, column j) covers the
stride x stride pixels of the network's input that begin at (stride i, stride j), cut off at the border.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64, UInt8
from PIL import Image
from torch import Tensor

from danet.data.images.channels import as_rgb, resize_long_side
from danet.errors import InputError
from danet.model.attention_kernels import attention_weights
from danet.model.danet import Branch, DANet
from danet.model.dranet import AttentionNetwork, DRANet, center_regions
from danet.model.preprocess import normalize
from danet.predict.inference import labels_from_logits, memory_errors
from danet.predict.modules import Module
from danet.predict.segmentation import Segmentation
from danet.weights.card import Card


class Contribution(NamedTuple):
    """What a module adds to its input x, the second term of Eq. 2 or 4, relative to the norm of x over the image.

    Args:
        size: |scale * attended| / |x|.
        varying: the same without the part that is equal at all positions, which a bias could replace.
    """

    size: float
    varying: float


class Internals(NamedTuple):
    """Intermediate results of one forward pass. None: the network lacks the module.

    Args:
        labels: the predicted class of each position.
        query: queries of Eq. 1, one row per position.
        key: keys of Eq. 1, one row per position; in a DRANet, per center.
        regions: the weights of the positions in the region of each center; None unless the network is a DRANet.
        channel_maps: E of Eq. 4, the attended channel maps.
        channel_weights: X of Eq. 3; in a DRANet, from channels to channel centers.
        logits_without: the logits with a module's attention switched off, by the module's name.
        scales: alpha of Eq. 2 and beta of Eq. 4, by the module's name.
        contributions: how much each module adds to its input, by the module's name.
        logits_without_attention: the logits with all attention switched off.
    """

    labels: UInt8[np.ndarray, "h w"]
    query: Float32[Tensor, "N D"] | None
    key: Float32[Tensor, "M D"] | None
    regions: Float32[Tensor, "M N"] | None
    channel_maps: Float32[Tensor, "C h w"] | None
    channel_weights: Float32[Tensor, "C M"] | None
    logits_without: dict[Module, Float[Tensor, "1 K h w"]]
    scales: dict[Module, float]
    contributions: dict[Module, Contribution]
    logits_without_attention: Float[Tensor, "1 K h w"]


@dataclass(frozen=True)
class Inspection:
    """The attention of one image; see `Predictor.inspect`.

    Args:
        segmentation: the prediction, the same as `Predictor` returns in float32.
        internals: intermediate results of the forward pass. The N x N matrix is not among them.
        input_size: height and width of the network's input.
        stride: distance of positions, in pixels of the network's input.
        align_corners: the network's, for interpolation of logits.
    """

    segmentation: Segmentation
    internals: Internals
    input_size: tuple[int, int]
    stride: int
    align_corners: bool

    def __repr__(self) -> str:
        rows, columns = self.grid
        return f"Inspection({self.segmentation!r}, {columns} x {rows} positions)"

    @property
    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image as RGB."""
        return as_rgb(self.segmentation.image)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the feature grid."""
        return self.internals.labels.shape

    @property
    def has_position(self) -> bool:
        """Whether the network has position attention."""
        return self.internals.query is not None

    @property
    def has_channel(self) -> bool:
        """Whether the network has channel attention."""
        return self.internals.channel_maps is not None

    def attention(self, x: int, y: int) -> Float32[np.ndarray, "h w"]:
        """Return how strongly a pixel of the image attends to each position: its row of Eq. 1's N x N matrix.

        Only this row is computed, in O(N D). Values are >= 0 and sum to 1. A DRANet attends to centers; the weight of
        each center is divided among the positions of its region.

        Raises:
            InputError: a pixel outside the image; a network without position attention.
        """
        weights = self._row(x, y)
        spread = weights if self.internals.regions is None else weights @ self.internals.regions
        return spread.view(self.grid).cpu().numpy()

    def center_attention(self, x: int, y: int) -> Float32[np.ndarray, " M"]:
        """Return how strongly a pixel of the image attends to each center of a DRANet; the sum is 1.

        The centers are means of the cells of the grids `danet.model.dranet.POOLS`: the image, its quarters, and so on,
        each grid row by row.

        Raises:
            InputError: a pixel outside the image; a network that is not a DRANet.
        """
        if self.internals.regions is None:
            raise InputError("weights", "the network does not attend to centers", "use weights of a DRANet")
        return self._row(x, y).cpu().numpy()

    def _row(self, x: int, y: int) -> Float32[Tensor, " M"]:
        if self.internals.query is None or self.internals.key is None:
            raise _lacks("position")
        row, column = self.position_of(x, y)
        index = row * self.grid[1] + column
        return attention_weights(self.internals.query[None, index : index + 1], self.internals.key[None])[0, 0]

    def position_of(self, x: int, y: int) -> tuple[int, int]:
        """Return row and column of the position that covers a pixel of the image.

        Raises:
            InputError: a pixel outside the image.
        """
        height, width = self.segmentation.labels.shape
        if not (0 <= x < width and 0 <= y < height):
            what = f"({x}, {y}) is outside the image of {width} x {height} pixels"
            raise InputError("point", what, f"use x from 0 to {width - 1} and y from 0 to {height - 1}")
        row, column = (
            int((at + 0.5) * input_side / side) // self.stride
            for at, input_side, side in zip((y, x), self.input_size, (height, width), strict=True)
        )
        return row, column

    def pixel_of(self, row: int, column: int) -> tuple[int, int]:
        """Return x and y of the image's pixel in the middle of the area that a position covers."""
        y, x = (
            int((self.stride * at + min(self.stride * (at + 1), input_side)) / 2 * side / input_side)
            for at, input_side, side in zip((row, column), self.input_size, self.segmentation.labels.shape, strict=True)
        )
        return x, y

    def spread(self, weights: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        """Divide the weight of each position evenly among its pixels of the image; the sum stays the same.

        Raises:
            InputError: another number of positions.
        """
        self._check_positions(weights)
        rows, columns = (
            _coverage(side, input_side, self.stride)
            for side, input_side in zip(self.segmentation.labels.shape, self.input_size, strict=True)
        )
        return (rows.T @ weights @ columns).astype(np.float32)

    def interpolate(
        self, values: Float32[np.ndarray, "h w"], size: tuple[int, int] | None = None
    ) -> Float32[np.ndarray, "H W"]:
        """Interpolate values of the positions linearly, from the middles of the areas that they cover.

        Args:
            values: one value per position.
            size: height and width of the result, which shows the whole image; None: the image's.

        Raises:
            InputError: another number of positions.
        """
        self._check_positions(values)
        height, width = self.segmentation.labels.shape if size is None else size
        box = (0, 0, self.input_size[1] / self.stride, self.input_size[0] / self.stride)
        return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR, box))

    def classes_attended(self, attention: Float32[np.ndarray, "h w"]) -> list[tuple[int, float]]:
        """Return (train id, share of the attention) of each class predicted in the grid, largest first; sums to 1.

        Args:
            attention: one value per position; see `attention`.

        Raises:
            InputError: another number of positions.
        """
        self._check_positions(attention)
        shares = np.bincount(self.internals.labels.ravel(), attention.ravel(), len(self.segmentation.classes))
        present = np.unique(self.internals.labels)
        return sorted(((int(i), float(shares[i])) for i in present), key=lambda entry: -entry[1])

    def strongest(self, attention: Float32[np.ndarray, "h w"], count: int = 5) -> list[tuple[int, int, float]]:
        """Return x, y in the image and weight of the positions with the largest weights, largest first.

        Raises:
            InputError: another number of positions.
        """
        self._check_positions(attention)
        order = np.argsort(-attention, axis=None, kind="stable")[:count]
        positions = [divmod(int(i), self.grid[1]) for i in order]
        return [(*self.pixel_of(row, column), float(attention[row, column])) for row, column in positions]

    def channel_maps(self, channels: Sequence[int]) -> Float32[np.ndarray, "n h w"]:
        """Return attended channel maps, E of Eq. 4.

        Args:
            channels: numbers of channels, from 0.

        Raises:
            InputError: no such channel; a network without channel attention.
        """
        maps = self._maps()
        for channel in channels:
            if not 0 <= channel < len(maps):
                what = f"there is no channel {channel}: the network has {len(maps)} channels"
                raise InputError("channels", what, f"use numbers from 0 to {len(maps) - 1}")
        return maps[list(channels)].cpu().numpy()

    def responses(self) -> Float32[np.ndarray, "C K"]:
        """Return how strongly each attended channel map responds to each class.

        The response is the map's mean over the positions of the class minus its mean over the others, in standard
        deviations of the map. It is 0 for a constant map, and nan for a class predicted nowhere or everywhere.
        """
        maps = self._maps().flatten(1).cpu().numpy()  # C,N
        within = self.internals.labels.ravel() == np.arange(len(self.segmentation.classes))[:, None]  # K,N
        inside, outside = within.sum(1), (~within).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = maps @ within.T / inside - maps @ ~within.T / outside  # C,K
        deviation = maps.std(1, keepdims=True)
        return (difference / np.where(deviation > 0, deviation, np.inf)).astype(np.float32)

    def channels_of(self, class_id: int, count: int = 2) -> list[int]:
        """Return the channels that respond most strongly to a class, strongest first; see `responses`.

        Raises:
            InputError: a class predicted nowhere or everywhere; a network without channel attention.
        """
        response = self.responses()[:, class_id]
        if np.isnan(response).any():
            name, share = self.segmentation.classes.names[class_id], float((self.internals.labels == class_id).mean())
            what = f"{name!r} is predicted on {share:.0%} of {self.segmentation.name}, so no channel distinguishes it"
            raise InputError("class_name", what, "choose another class")
        return [int(i) for i in np.argsort(-response, kind="stable")[:count]]

    def channel_attention(self) -> Float32[np.ndarray, "C M"]:
        """Return X of Eq. 3: row j is the attention of channel j to all channels; each row sums to 1.

        In a DRANet, row j is the attention of channel j to the channel centers.

        Raises:
            InputError: a network without channel attention.
        """
        if self.internals.channel_weights is None:
            raise _lacks("channel")
        return self.internals.channel_weights.cpu().numpy()

    def without(self, module: Module | None) -> Segmentation:
        """Return the prediction with attention switched off: the scale is 0, all else is equal.

        Args:
            module: which attention; None: both.

        Raises:
            InputError: a network without the module.
        """
        if module is not None and module not in self.internals.logits_without:
            raise _lacks(module)
        full, internals = self.segmentation, self.internals
        logits = internals.logits_without_attention if module is None else internals.logits_without[module]
        result = labels_from_logits(logits, self.input_size, full.labels.shape, self.align_corners)
        return Segmentation(full.name, full.image, *result, full.classes)

    def _check_positions(self, values: np.ndarray) -> None:
        if values.shape != self.grid:
            what = f"needs a value for each of {self.grid[0]} x {self.grid[1]} positions, got {values.shape}"
            raise InputError("attention", what, "use the attention of a position of this image")

    def _maps(self) -> Tensor:
        if self.internals.channel_maps is None:
            raise _lacks("channel")
        return self.internals.channel_maps


@torch.inference_mode()
def inspect_pixels(network: object, card: Card, name: str, pixels: np.ndarray) -> Inspection:
    """Run an image through a network once, and keep what is needed to query its attention.

    Args:
        network: a `DANet` or a `DRANet`.
        card: the network's.
        name: of the image.
        pixels: H,W,N uint8 or float32, as `read_image` returns them for the card's bands.

    Raises:
        InputError: an exported model or a baseline; too little memory.
    """
    if not isinstance(network, AttentionNetwork):
        what = "an exported model or a baseline has no attention to inspect"
        raise InputError("weights", what, "use the .safetensors weights of a DANet or DRANet")
    inputs = resize_long_side(pixels, card.size)
    input_size, size = (inputs.shape[0], inputs.shape[1]), (pixels.shape[0], pixels.shape[1])
    device = next(network.parameters()).device
    images = normalize(torch.tensor(inputs, device=device)[None], card.mean, card.std)
    with memory_errors(name, pixels):
        logits, internals = _forward(network, *network.split(network.backbone(images)))
        result = labels_from_logits(logits, input_size, size, network.align_corners)
    segmentation = Segmentation(name, pixels, *result, card.classes)
    return Inspection(segmentation, internals, input_size, network.stride, network.align_corners)


def _forward(
    network: AttentionNetwork, features: Float[Tensor, "1 C h w"], finer: Sequence[Tensor]
) -> tuple[Float[Tensor, "1 K H W"], Internals]:
    """Compute `network.logits(...).fused` from the parts of `network.split`, and keep intermediate results."""
    position, channel = network.position, network.channel
    modules: dict[Module, Branch | None] = {"position": position, "channel": channel}
    branches: dict[Module, Branch] = {name: branch for name, branch in modules.items() if branch is not None}
    reduced = {name: branch.reduce(features) for name, branch in branches.items()}
    attended = {name: branch.attention(reduced[name]) for name, branch in branches.items()}
    refined = {name: branch.refine(attended[name]) for name, branch in branches.items()}
    neither = [network.reduce(features)] if isinstance(network, DANet) and network.reduce is not None else []
    logits = network.fuse([*refined.values(), *neither], finer)
    logits_without: dict[Module, Tensor] = {
        name: network.fuse([*(refined | {name: branch.refine(reduced[name])}).values()], finer)
        for name, branch in branches.items()
    }
    none = network.fuse([*(branch.refine(reduced[name]) for name, branch in branches.items()), *neither], finer)
    contributions: dict[Module, Contribution] = {
        name: _contribution(reduced[name], attended[name]) for name in branches
    }
    query = key = regions = maps = weights = None
    if position is not None:
        query, key = (rows[0].float() for rows in position.attention.query_key(reduced["position"]))
    if isinstance(network, DRANet) and query is not None:
        regions = center_regions(features.shape[2], features.shape[3], query)
    if channel is not None:
        maps, weights = attended["channel"][0].float(), channel.attention.weights(reduced["channel"])[0].float()
    scales: dict[Module, float] = {name: float(branch.attention.scale.item()) for name, branch in branches.items()}
    labels = _at_grid(logits, features).argmax(1)[0].to(torch.uint8).cpu().numpy()
    return logits, Internals(labels, query, key, regions, maps, weights, logits_without, scales, contributions, none)


def _contribution(x: Float[Tensor, "1 C h w"], result: Float[Tensor, "1 C h w"]) -> Contribution:
    added, size = (result - x).float(), max(x.float().norm().item(), 1e-12)
    return Contribution(added.norm().item() / size, (added - added.mean((2, 3), keepdim=True)).norm().item() / size)


def _at_grid(logits: Float[Tensor, "1 K H W"], features: Float[Tensor, "1 C h w"]) -> Float[Tensor, "1 K h w"]:
    """Return the mean logits of each position of the feature grid; a decoder's are finer."""
    size = features.shape[2], features.shape[3]
    return logits if logits.shape[2:] == size else F.adaptive_avg_pool2d(logits, size)


def _coverage(side: int, input_side: int, stride: int) -> Float64[np.ndarray, "n side"]:
    """Return the share of each position that lies in each of the image's pixels along an axis; rows sum to 1."""
    starts = np.arange(0, input_side, stride)[:, None] * side / input_side
    ends = np.append(starts[1:, 0], side)[:, None]
    pixels = np.arange(side)
    covered = (np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)).clip(0)
    return covered / (ends - starts)


def _lacks(module: Module) -> InputError:
    what = f"the network has no {module} attention"
    return InputError("weights", what, f"use weights of a network with {module} attention")
