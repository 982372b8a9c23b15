"""From a picture's pixels to scores, labels and confidence, under a protocol."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from danet.data import bands
from danet.inference.averaging import Logits, averaged
from danet.inference.protocol import WHOLE, Average, Protocol


def normalise(
    images: UInt8[Tensor, "B H W N"] | Float32[Tensor, "B H W N"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "B N H W"]:
    """(x / 255 - mean) / std, float32, in channels_last memory."""
    assert images.shape[-1] == len(mean) == len(std)
    scale = 255 * torch.tensor(std, device=images.device)
    shift = torch.tensor(mean, device=images.device) / torch.tensor(std, device=images.device)
    return (images.float() / scale - shift).permute(0, 3, 1, 2)


def resized(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """The picture with its longer side brought to `long_side` pixels (antialiased bilinear), or as it is for None."""
    if long_side is None or max(image.shape[:2]) == long_side:
        return image
    height, width = (max(1, round(side * long_side / max(image.shape[:2]))) for side in image.shape[:2])
    return bands.resize(image, (height, width))


def scores(
    logits: Logits,
    image: UInt8[np.ndarray, "H W N"] | Float32[np.ndarray, "H W N"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    long_side: int | None = None,
    protocol: Protocol = WHOLE,
    batch: int | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "K n W"]]]:
    """The averaged scores at the picture's own size, a band of rows at a time: logits, probabilities, or sums of
    exponentials, as `protocol.average` says.

    Args:
        long_side: the picture is first brought to this size, as in training; a protocol with a base size of its own
            takes the picture as it is.
        batch: images through the network at once, mirrored ones included; it changes no result. None: as many as suit
            the device, see `averaging.averaged`.

    Raises:
        InputError: a protocol that cannot be followed; exponentials beyond the number format.
    """
    shown = image if protocol.base(*image.shape[:2]) is not None else resized(image, long_side)
    black = normalise(torch.zeros(1, 1, 1, len(mean), dtype=torch.uint8, device=device), mean, std)
    pixels = normalise(torch.tensor(shown, device=device)[None], mean, std)
    return averaged(logits, pixels, black, (image.shape[0], image.shape[1]), protocol, batch)


@torch.inference_mode()
def segment(
    logits: Logits,
    image: UInt8[np.ndarray, "H W N"] | Float32[np.ndarray, "H W N"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    long_side: int | None = None,
    protocol: Protocol = WHOLE,
    batch: int | None = None,
) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """A picture's train ids and the probability of each, in [0, 1], at the picture's own size. Arguments and errors are
    those of `scores`.
    """
    labels, confidence = np.empty(image.shape[:2], np.uint8), np.empty(image.shape[:2], np.float32)
    for rows, band in scores(logits, image, mean, std, device, long_side, protocol, batch):
        best, index = _probabilities(band, protocol.average).max(dim=0)  # n,W
        labels[rows], confidence[rows] = index.to(torch.uint8).cpu(), best.clamp(max=1).cpu()  # a mean may round up
    return labels, confidence


def _probabilities(scores: Float[Tensor, "K n W"], average: Average) -> Float[Tensor, "K n W"]:
    if average == "logits":
        return torch.softmax(scores, dim=0)
    if average == "exp":  # by the largest first: a sum over classes may be beyond float32, and every score may be 0
        largest = scores.amax(dim=0)
        scores = scores / largest.where(largest > 0, 1)
        return scores / scores.sum(dim=0).clamp(min=1)
    return scores
