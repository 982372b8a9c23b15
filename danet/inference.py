"""From a picture to scores, over any callable that maps normalised images B,3,H,W to logits B,K,H',W' (a network, an
exported model).

Used by `predict`, `evaluate` and `train` (validation).
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Logits = Callable[[Tensor], Tensor]

BAND_ELEMENTS = 1 << 24
"""Scores held at once while they are brought to the picture's size: 64 MiB in float32."""


def normalise(
    images: UInt8[Tensor, "B H W 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "B 3 H W"]:
    """(x / 255 - mean) / std, float32, in channels_last memory."""
    scale = 255 * torch.tensor(std, device=images.device)
    shift = torch.tensor(mean, device=images.device) / torch.tensor(std, device=images.device)
    return (images.float() / scale - shift).permute(0, 3, 1, 2)


def resized(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """The picture with its longer side brought to `long_side` pixels (antialiased bilinear), or as it is for None."""
    if long_side is None or max(image.shape[:2]) == long_side:
        return image
    height, width = (max(1, round(side * long_side / max(image.shape[:2]))) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@torch.inference_mode()
def segment(
    logits: Logits,
    image: UInt8[np.ndarray, "H W 3"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    long_side: int | None = None,
) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """A whole picture's train ids and the probability of each, at the picture's own size.

    Args:
        long_side: the picture is brought to this size for the network; the scores are brought back.
    """
    pixels = torch.tensor(resized(image, long_side), device=device)[None]
    scores = logits(normalise(pixels, mean, std)).float()  # 1,K,h,w
    labels, confidence = np.empty(image.shape[:2], np.uint8), np.empty(image.shape[:2], np.float32)
    for rows, band in upsampled_bands(scores, (image.shape[0], image.shape[1])):
        best, index = torch.softmax(band, dim=1).max(dim=1)  # 1,n,W
        labels[rows], confidence[rows] = index[0].to(torch.uint8).cpu(), best[0].cpu()
    return labels, confidence


def upsampled_bands(
    scores: Float[Tensor, "B K h w"], size: tuple[int, int]
) -> Iterator[tuple[slice, Float[Tensor, "B K n W"]]]:
    """Bilinear interpolation (align_corners=False) to `size`, a band of rows at a time, so that B*K*H*W is never held.

    The bands put together are what `torch.nn.functional.interpolate` gives for the whole.
    """
    height, width = scores.shape[-2:]
    step = max(1, BAND_ELEMENTS // (scores.shape[0] * scores.shape[1] * size[1]))
    source = ((torch.arange(size[0], device=scores.device, dtype=torch.float64) + 0.5) * height / size[0] - 0.5).clamp(
        min=0
    )
    above = source.floor().long().clamp(max=height - 1)
    below, part = (above + 1).clamp(max=height - 1), (source - above)[:, None]
    for start in range(0, size[0], step):
        rows = slice(start, min(start + step, size[0]))
        band = torch.lerp(scores[..., above[rows], :], scores[..., below[rows], :], part[rows].to(scores.dtype))
        if width != size[1]:
            band = F.interpolate(band, size=(band.shape[-2], size[1]), mode="bilinear", align_corners=False)
        yield rows, band
