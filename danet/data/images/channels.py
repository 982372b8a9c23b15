"""What the values of an image's bands mean, and arrays of any number of bands: `channels` and `white` of dataset.yaml.

An image is H,W,N: uint8, or float32 where its file holds more than 8 bits. 255 is the value that a network sees as 1:
65535 of a 16-bit file, or what `white:` says. Values above white stay above 255; nothing is clipped.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from danet.errors import InputError

MAX_CHANNELS = 64


@dataclass(frozen=True)
class Bands:
    """How a dataset's or a network's images are read.

    Args:
        channels: the number of bands, exactly as the files hold them; None: RGB, to which palettes and gray images
            are brought, and transparency laid over black.
        white: the value that means 1; None: the largest of the file's type, 255 or 65535.
    """

    channels: int | None = None
    white: int | None = None

    @property
    def count(self) -> int:
        """The channels that a network of such images has."""
        return self.channels or 3


RGB = Bands()


def as_pixels(stored: np.ndarray, bands: Bands, name: Path | str) -> np.ndarray:
    """H,W,N uint8 or uint16 as a file holds it -> H,W,`bands.count` uint8 or float32, 255 being white. One band is
    repeated for RGB, with all its bits.

    Raises:
        InputError: another number of bands, or 8-bit values where white is above 255.
    """
    found, bits = stored.shape[2], 8 * stored.dtype.itemsize
    if found != bands.count and (bands.channels is not None or found != 1):
        wanted = "RGB" if bands.channels is None else f"{bands.channels}"
        remedy = f"give images of {bands.count} bands, as the network takes or channels: in dataset.yaml says"
        raise InputError(name, f"has {found} band{'s' * (found != 1)} of {bits} bits, not {wanted}", remedy)
    if bits == 8 and (bands.white or 255) > 255:
        raise InputError(name, f"has 8 bits a value, which cannot reach white: {bands.white}", "give 16-bit images")
    stored = np.repeat(stored, bands.count, axis=2) if found != bands.count else stored
    if bits == 8 and bands.white in (None, 255):
        return np.asarray(stored)
    return stored.astype(np.float32) / np.float32((bands.white or (1 << bits) - 1) / 255)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """An image H,W,N as it is shown to people, H,W,3 uint8: its first three bands, or the first in gray where there
    are fewer; above white it is white. An 8-bit RGB image is returned itself.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if shown.dtype != np.uint8:
        shown = shown.round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (*image.shape[:2], 3)))


def as_type(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Computed float values as uint8, cut to 0..255, or as they are, for an image of that type."""
    return pixels.clip(0, 255).astype(np.uint8) if dtype == np.uint8 else pixels


def resize(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """An image H,W,N, or its part (left, top, right, bottom), at `size` (height, width): bilinear, antialiased;
    within one level of resizing the whole, since Pillow orders its two passes by the size of what it is given.
    """
    flipped = size[1], size[0]
    left, top, right, bottom = box or (0, 0, image.shape[1], image.shape[0])
    x, y = (math.ceil(max(1.0, part / whole)) + 1 for part, whole in ((right - left, size[1]), (bottom - top, size[0])))
    x0, y0 = max(0, math.floor(left) - x), max(0, math.floor(top) - y)  # the part, and what the filter sees beside it
    seen = np.ascontiguousarray(image[y0 : math.ceil(bottom) + y, x0 : math.ceil(right) + x])
    within = left - x0, top - y0, right - x0, bottom - y0
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(seen).resize(flipped, Image.Resampling.BILINEAR, within))
    # a band at a time: Pillow multiplies two and four by the last, which it takes for transparency
    parts = [Image.fromarray(np.ascontiguousarray(seen[..., i])) for i in range(image.shape[2])]
    return np.stack([np.asarray(part.resize(flipped, Image.Resampling.BILINEAR, within)) for part in parts], axis=2)


def resized(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """The image with its longer side brought to `long_side` pixels (antialiased bilinear), or as it is for None."""
    if long_side is None or max(image.shape[:2]) == long_side:
        return image
    height, width = (max(1, round(side * long_side / max(image.shape[:2]))) for side in image.shape[:2])
    return resize(image, (height, width))
