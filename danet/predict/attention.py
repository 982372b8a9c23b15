"""From an image to what the two modules made of it (section 4.2, Visualization of Attention Module). Used by `danet
look`, `danet serve` and `Predictor.attention`.

Positions are those of the feature grid, h x w = N of them; position (row i, column j) stands for the stride x stride
pixels of the image as the network was shown it that begin at (stride i, stride j), the last ones cut by the border.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from PIL import Image
from torch import Tensor

from danet.data.images.channels import as_rgb, resized
from danet.errors import InputError
from danet.model.attention import PositionAttention
from danet.model.attention_kernels import attention_weights
from danet.model.danet import Branch, DANet
from danet.model.preprocess import normalize
from danet.predict.inference import segment
from danet.predict.predictor import Predictor, Segmentation, read_pixels
from danet.predict.protocols import WHOLE

Module = Literal["position", "channel"]


class Inside(NamedTuple):
    """What is kept of one pass through the network. None: the network has no such module.

    Args:
        labels: h,w uint8, the predicted class of each position.
        query, key: N,D float32, the rows whose products are the energies of Eq. 1.
        maps: C,h,w float32, E of Eq. 4.
        weights: C,C float32, X of Eq. 3.
        without: the prediction's logits 1,K,h,w with a module's attention switched off, by its name.
        scales: alpha of Eq. 2 and beta of Eq. 4, by the module's name.
    """

    labels: UInt8[np.ndarray, "h w"]
    query: Float32[Tensor, "N D"] | None
    key: Float32[Tensor, "N D"] | None
    maps: Float32[Tensor, "C h w"] | None
    weights: Float32[Tensor, "C C"] | None
    without: dict[Module, Float[Tensor, "1 K h w"]]
    scales: dict[Module, float]


@dataclass(frozen=True)
class Seen:
    """What a network saw in an image; made by `see`.

    Args:
        segmentation: its prediction, the one that `Predictor` gives.
        inside: what was kept of the pass.
        shown: height and width in which the network was shown the image.
        stride: pixels of that, from a position to the next.
        predictor: whose prediction it is.
    """

    segmentation: Segmentation
    inside: Inside
    shown: tuple[int, int]
    stride: int
    predictor: Predictor

    @property
    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        return as_rgb(self.segmentation.image)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the feature grid."""
        return self.inside.labels.shape

    @property
    def has_position(self) -> bool:
        return self.inside.query is not None

    @property
    def has_channel(self) -> bool:
        return self.inside.maps is not None

    def attention(self, x: int, y: int) -> Float32[np.ndarray, "h w"]:
        """Where a pixel of the image looks: its position's row of Eq. 1's N x N matrix, computed alone in N x D work.
        >= 0, sums to 1.

        Raises:
            InputError: a pixel outside the image; a network without position attention.
        """
        if self.inside.query is None or self.inside.key is None:
            raise _lacks("position")
        row, column = self.position(x, y)
        at = row * self.grid[1] + column
        weights = attention_weights(self.inside.query[None, at : at + 1], self.inside.key[None])  # 1,1,N
        return weights.view(self.grid).cpu().numpy()

    def position(self, x: int, y: int) -> tuple[int, int]:
        """Row and column of the position that stands for a pixel of the image.

        Raises:
            InputError: a pixel outside the image.
        """
        height, width = self.segmentation.labels.shape
        if not (0 <= x < width and 0 <= y < height):
            what = f"({x}, {y}) is outside the image of {width} x {height} pixels"
            raise InputError("point", what, f"give x from 0 to {width - 1} and y from 0 to {height - 1}")
        row, column = (
            int((at + 0.5) * shown / side) // self.stride
            for at, shown, side in zip((y, x), self.shown, (height, width), strict=True)
        )
        return row, column

    def pixel(self, row: int, column: int) -> tuple[int, int]:
        """X and y of the image's pixel in the middle of those that a position stands for."""
        y, x = (
            int((self.stride * at + min(self.stride * (at + 1), shown)) / 2 * side / shown)
            for at, shown, side in zip((row, column), self.shown, self.segmentation.labels.shape, strict=True)
        )
        return x, y

    def spread(self, weights: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        """Each position's weight, shared out evenly over what it stands for in the image; the sum stays the same."""
        rows, columns = (
            _shares(side, shown, self.stride)
            for side, shown in zip(self.segmentation.labels.shape, self.shown, strict=True)
        )
        return (rows.T @ weights @ columns).astype(np.float32)

    def over_image(
        self, values: Float32[np.ndarray, "h w"], size: tuple[int, int] | None = None
    ) -> Float32[np.ndarray, "H W"]:
        """Values of the positions, linear between the middles of what they stand for, at the image's size, or at
        another height and width for an image brought to it.
        """
        height, width = self.segmentation.labels.shape if size is None else size
        seen = (0, 0, self.shown[1] / self.stride, self.shown[0] / self.stride)
        return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR, seen))

    def classes_attended(self, attention: Float32[np.ndarray, "h w"]) -> list[tuple[int, float]]:
        """How the attention is shared out between the classes predicted at the positions, largest first; 1 in all."""
        shares = np.bincount(self.inside.labels.ravel(), attention.ravel(), len(self.segmentation.classes))
        present = np.unique(self.inside.labels)
        return sorted(((int(i), float(shares[i])) for i in present), key=lambda entry: -entry[1])

    def strongest(self, attention: Float32[np.ndarray, "h w"], count: int = 5) -> list[tuple[int, int, float]]:
        """The positions of the largest weights: x and y in the image, weight."""
        order = np.argsort(-attention, axis=None, kind="stable")[:count]
        found = [divmod(int(i), self.grid[1]) for i in order]
        return [(*self.pixel(row, column), float(attention[row, column])) for row, column in found]

    def channel_maps(self, channels: Sequence[int]) -> Float32[np.ndarray, "n h w"]:
        """The attended channel maps E of Eq. 4, numbered from 0.

        Raises:
            InputError: no such channel; a network without channel attention.
        """
        maps = self._maps()
        for channel in channels:
            if not 0 <= channel < len(maps):
                raise InputError(
                    f"channel {channel}", f"the network has {len(maps)}", f"give numbers from 0 to {len(maps) - 1}"
                )
        return maps[list(channels)].cpu().numpy()

    def responses(self) -> Float32[np.ndarray, "C K"]:
        """How much each attended channel map answers to each class: its mean over the positions of the class minus its
        mean over the others, in standard deviations of the map. 0 for a map without variation; nan for a class that is
        predicted nowhere, or everywhere.
        """
        maps = self._maps().flatten(1).cpu().numpy()  # C,N
        within = self.inside.labels.ravel() == np.arange(len(self.segmentation.classes))[:, None]  # K,N
        inside, outside = within.sum(1), (~within).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = maps @ within.T / inside - maps @ ~within.T / outside  # C,K
        deviation = maps.std(1, keepdims=True)
        return (difference / np.where(deviation > 0, deviation, np.inf)).astype(np.float32)

    def channels_of(self, class_id: int, count: int = 2) -> list[int]:
        """The channels that respond most to a class, by the measure of `responses`.

        Raises:
            InputError: a class that is predicted nowhere, or everywhere; a network without channel attention.
        """
        response = self.responses()[:, class_id]
        if np.isnan(response).any():
            share = float((self.inside.labels == class_id).mean())
            what = f"is predicted on {share:.0%} of {self.segmentation.name}: no channel tells it from the rest"
            raise InputError(f"class {self.segmentation.classes.names[class_id]}", what, "name another class")
        return [int(i) for i in np.argsort(-response, kind="stable")[:count]]

    def channel_attention(self) -> Float32[np.ndarray, "C C"]:
        """X of Eq. 3: row j is channel j's attention over all channels; each row sums to 1.

        Raises:
            InputError: a network without channel attention.
        """
        if self.inside.weights is None:
            raise _lacks("channel")
        return self.inside.weights.cpu().numpy()

    def without(self, module: Module) -> Segmentation:
        """The prediction with that module's attention switched off, its scale 0, and everything else equal.

        Raises:
            InputError: a network without the module.
        """
        if module not in self.inside.without:
            raise _lacks(module)
        segmentation = self.segmentation
        return _segmentation(self.predictor, segmentation.name, segmentation.image, self.inside.without[module])

    def _maps(self) -> Tensor:
        if self.inside.maps is None:
            raise _lacks("channel")
        return self.inside.maps


def see(predictor: Predictor, image: Path | str | Image.Image | np.ndarray) -> Seen:
    """Show an image to the network, once, and keep what the questions to `Seen` need: no N x N matrix.

    Args:
        image: a path, a Pillow image or an array, of any size; see `danet.predict.read_pixels`.

    Raises:
        InputError: no image; a predictor whose network is not a `DANet`, as an exported model or a baseline.
    """
    return see_pixels(predictor, *read_pixels(image, predictor.card.bands))


@torch.inference_mode()
def see_pixels(predictor: Predictor, name: str, pixels: np.ndarray) -> Seen:
    """`see` of an image as samples hold it, H,W,N uint8 or float32."""
    network, card = predictor.folded, predictor.card
    if not isinstance(network, DANet):
        raise InputError(
            "look",
            "an exported model, or one that is no DANet, shows no attention",
            "look needs the .safetensors weights of a DANet",
        )
    shown = resized(pixels, card.size)
    images = normalize(torch.tensor(shown, device=predictor.device)[None], card.mean, card.std)
    logits, inside = _inside(network, network.backbone(images)[-1])
    segmentation = _segmentation(predictor, name, pixels, logits)
    stride = network.backbone.feature_info.reduction()[-1]  # pyright: ignore
    return Seen(segmentation, inside, (shown.shape[0], shown.shape[1]), stride, predictor)


def _inside(network: DANet, features: Float[Tensor, "1 C h w"]) -> tuple[Float[Tensor, "1 K h w"], Inside]:
    """`DANet.logits(...).fused` from the backbone's features, and what is kept."""
    modules: dict[Module, Branch | None] = {"position": network.position, "channel": network.channel}
    branches: dict[Module, Branch] = {name: branch for name, branch in modules.items() if branch is not None}
    reduced = {name: branch.reduce(features) for name, branch in branches.items()}
    attended = {name: branch.attention(reduced[name]) for name, branch in branches.items()}
    refined = {name: branch.refine(attended[name]) for name, branch in branches.items()}
    neither = [] if network.reduce is None else [network.reduce(features)]
    logits = network.classifier(sum([*refined.values(), *neither]))
    without: dict[Module, Tensor] = {
        name: network.classifier(sum((refined | {name: branch.refine(reduced[name])}).values()))
        for name, branch in branches.items()
    }
    query = key = maps = weights = None
    for name, branch in branches.items():
        module, x = branch.attention, reduced[name]
        if isinstance(module, PositionAttention):
            query, key = (part(x)[0].flatten(1).T.float() for part in (module.query, module.key))
        else:
            maps, weights = attended[name][0].float(), module.weights(x)[0].float()
    scales: dict[Module, float] = {name: float(branch.attention.scale.item()) for name, branch in branches.items()}
    labels = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    return logits, Inside(labels, query, key, maps, weights, without, scales)


def _segmentation(predictor: Predictor, name: str, pixels: np.ndarray, logits: Tensor) -> Segmentation:
    """What `Predictor` makes of these logits."""
    card, protocol = predictor.card, predictor.shown_by(WHOLE)
    found = segment(lambda _: logits, pixels, card.mean, card.std, predictor.device, card.size, protocol)
    return Segmentation(name, pixels, *found, predictor.classes)


def _shares(side: int, shown: int, stride: int) -> Float64[np.ndarray, "n side"]:
    """Of each position along an axis, the share that lies in each of the image's pixels; rows sum to 1."""
    starts = np.arange(0, shown, stride)[:, None] * side / shown
    ends = np.append(starts[1:, 0], side)[:, None]
    pixels = np.arange(side)
    covered = (np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)).clip(0)
    return covered / (ends - starts)


def _lacks(module: Module) -> InputError:
    return InputError("look", f"the network has no {module} attention", "give weights of a network that has it")
