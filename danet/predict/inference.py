"""From an image's pixels to scores, labels and confidence, under a protocol."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from danet.data.images.channels import resized
from danet.model.preprocess import normalize
from danet.predict.protocols import WHOLE, Average, Protocol
from danet.predict.sliding_window import Logits, averaged


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
    """The averaged scores at the image's own size, a band of rows at a time: logits, probabilities, or sums of
    exponentials, as `protocol.average` says.

    Args:
        long_side: the image is first brought to this size, as in training; a protocol with a base size of its own
            takes the image as it is.
        batch: images through the network at once, mirrored ones included; it changes no result. None: as many as suit
            the device, see `averaging.averaged`.

    Raises:
        InputError: a protocol that cannot be followed; exponentials beyond the number format.
    """
    shown = image if protocol.base(*image.shape[:2]) is not None else resized(image, long_side)
    black = normalize(torch.zeros(1, 1, 1, len(mean), dtype=torch.uint8, device=device), mean, std)
    pixels = normalize(torch.tensor(shown, device=device)[None], mean, std)
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
    """An image's train ids and the probability of each, in [0, 1], at the image's own size. Arguments and errors are
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
