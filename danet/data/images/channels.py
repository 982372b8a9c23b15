"""The bands of an image and the meaning of their values: `channels` and `white` in dataset.yaml.

An image is H,W,N: uint8, or float32 if its file has more than 8 bits. 255 is the value that becomes 1 in the network's
input: 65535 in a 16-bit file, or the value given by `white`. Values above white stay above 255; nothing is clipped.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from danet.errors import InputError

MAX_CHANNELS = 64
LONGEST = 1 << 22
"""Longer sides are resized in pieces: Pillow computes 16 bytes of filter weights for each of their pixels."""


@dataclass(frozen=True)
class Bands:
    """How the images of a dataset or a network are read.

    Args:
        channels: the number of bands, exactly as stored in the files. None: RGB; palettes and gray images are
            converted, and transparent images are composited over black.
        white: the value that means 1. None: the largest value of the file's type, 255 or 65535.
    """

    channels: int | None = None
    white: int | None = None

    @property
    def count(self) -> int:
        """The number of input channels of a network for such images."""
        return self.channels or 3


RGB = Bands()


class Header(NamedTuple):
    """The header of an image file.

    Args:
        height: in pixels.
        width: in pixels.
        channels: the number of bands.
        bits: per value.
        alpha: whether the last band is transparency.
        orientation: the EXIF orientation, 1 to 8, which height and width do not follow.
        pages: the number of pages of a stack, or frames of an animation.
    """

    height: int
    width: int
    channels: int
    bits: int
    alpha: bool = False
    orientation: int = 1
    pages: int = 1


def check_type(kind: str, name: Path | str) -> None:
    """Check the data type of an image file.

    Raises:
        InputError: not uint8 or uint16.
    """
    if kind not in ("uint8", "uint16"):
        raise InputError(name, f"holds {kind} values", "convert it to 8 or 16 bits (uint8 or uint16) first")


def check_size(header: Header, name: Path | str, max_pixels: int) -> None:
    """Check that an image has at most `max_pixels` pixels; fewer if it has more than four bands.

    Raises:
        InputError: it has more.
    """
    height, width, channels = header[:3]
    limit = max_pixels * 4 // max(4, channels)
    if height * width > limit:
        what = f"{width} x {height} in {channels} bands: more pixels than the limit of {limit:,}"
        raise InputError(name, what, "make it smaller")


def as_pixels(stored: np.ndarray, bands: Bands, name: Path | str) -> np.ndarray:
    """Convert stored values to pixels, with 255 as white. For RGB, a single band is repeated.

    Args:
        stored: H,W,N uint8 or uint16, as in the file.
        bands: how to read it.
        name: its name, for messages.

    Returns:
        H,W,`bands.count` uint8 or float32.

    Raises:
        InputError: another number of bands, or 8-bit values with white above 255.
    """
    count, bits = stored.shape[2], 8 * stored.dtype.itemsize
    if count != bands.count and (bands.channels is not None or count != 1):
        wanted = "RGB" if bands.channels is None else f"{bands.channels}"
        remedy = f"use images of {bands.count} bands, as the network or dataset.yaml requires"
        raise InputError(name, f"has {count} band{'s' * (count != 1)} of {bits} bits, not {wanted}", remedy)
    if bits == 8 and (bands.white or 255) > 255:
        raise InputError(name, f"has 8 bits per value, which cannot reach white: {bands.white}", "use 16-bit images")
    stored = np.repeat(stored, bands.count, axis=2) if count != bands.count else stored
    if bits == 8 and bands.white in (None, 255):
        return np.asarray(stored)
    return stored.astype(np.float32) / np.float32((bands.white or (1 << bits) - 1) / 255)


def check_rgb(image: np.ndarray) -> None:
    """Check that an array is an image, H,W,3 uint8.

    Raises:
        InputError: it has another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"must be H,W,3 uint8, got {'x'.join(map(str, image.shape))} {image.dtype}"
        raise InputError("image", what, 'for example, use np.asarray(Image.open(file).convert("RGB"))')


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image H,W,N as H,W,3 uint8 for display: the first three bands, or the first in gray if there are fewer.

    Values above white are clipped. An 8-bit RGB image is returned unchanged.
    """
    visible = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if visible.dtype != np.uint8:
        visible = visible.round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(visible, (*image.shape[:2], 3)))


def as_type(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert computed values to an image's type: clipped to 0..255 for uint8, unchanged for float32."""
    return pixels.clip(0, 255).astype(np.uint8) if dtype == np.uint8 else pixels


def resize(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Resize an image, or a part of it, with an antialiased bilinear filter.

    The result differs by at most one level from resizing the whole image, because Pillow orders its two passes by the
    size of its input.

    Args:
        image: H,W,N uint8 or float32.
        size: height and width of the result.
        box: left, top, right and bottom of the part; None: the whole image.
    """
    flipped = size[1], size[0]
    left, top, right, bottom = box or (0, 0, image.shape[1], image.shape[0])
    if (longest := max(right - left, bottom - top)) > LONGEST and max(size) > 1:
        axis, count = int(right - left > bottom - top), min(max(size), math.ceil(longest / LONGEST))
        cuts = [size[axis] * i // count for i in range(count + 1)]
        return np.concatenate(
            [_resize_piece(image, size, (left, top, right, bottom), axis, cut) for cut in pairwise(cuts)], axis
        )
    x, y = (math.ceil(max(1.0, part / whole)) + 1 for part, whole in ((right - left, size[1]), (bottom - top, size[0])))
    x0, y0 = max(0, math.floor(left) - x), max(0, math.floor(top) - y)  # the part and a margin for the filter
    part = np.ascontiguousarray(image[y0 : math.ceil(bottom) + y, x0 : math.ceil(right) + x])
    box = left - x0, top - y0, right - x0, bottom - y0
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(part).resize(flipped, Image.Resampling.BILINEAR, box))
    # one band at a time: Pillow takes the last of two or four bands for alpha and multiplies the others by it
    bands = [Image.fromarray(np.ascontiguousarray(part[..., i])) for i in range(image.shape[2])]
    return np.stack([np.asarray(band.resize(flipped, Image.Resampling.BILINEAR, box)) for band in bands], axis=2)


def _resize_piece(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float], axis: int, cut: tuple[int, int]
) -> np.ndarray:
    """Return `resize(image, size, box)`, but only from `cut[0]` to `cut[1]` along an axis."""
    sides, edges = list(size), list(box)
    sides[axis] = cut[1] - cut[0]
    first = 1 - axis  # of the box's edges along this axis
    scale = (box[first + 2] - box[first]) / size[axis]
    edges[first], edges[first + 2] = box[first] + scale * cut[0], box[first] + scale * cut[1]
    return resize(image, (sides[0], sides[1]), (edges[0], edges[1], edges[2], edges[3]))


def resize_long_side(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """Resize an image so that its longer side has `long_side` pixels; return it unchanged for None."""
    if long_side is None or max(image.shape[:2]) == long_side:
        return image
    height, width = (max(1, round(side * long_side / max(image.shape[:2]))) for side in image.shape[:2])
    return resize(image, (height, width))
