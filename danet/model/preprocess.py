"""Image normalization, the same in training, prediction and export."""

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor


def normalize(
    images: UInt8[Tensor, "B H W N"] | Float32[Tensor, "B H W N"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "B N H W"]:
    """Return (x / 255 - mean) / std as float32, in channels_last memory format.

    Args:
        images: pixels, 255 = white.
        mean: per channel, for pixels in [0, 1].
        std: per channel, for pixels in [0, 1].
    """
    assert images.shape[-1] == len(mean) == len(std)
    scale = 255 * torch.tensor(std, device=images.device)
    shift = torch.tensor(mean, device=images.device) / torch.tensor(std, device=images.device)
    return (images.float() / scale - shift).permute(0, 3, 1, 2)
