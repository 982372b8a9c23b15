"""The brightness of 16-bit images. Dark ones need `white` in dataset.yaml, because 65535 is read as white otherwise."""

import math
from collections.abc import Sequence

import numpy as np

_PERCENTILE = 99.9
"""Of the values of an image: a few saturated or damaged pixels do not hide that the others are dark."""
_IMAGES_PERCENTILE = 95
"""Of the images, the brightest of which may be damaged."""
_HALF = 32768


def brightness(image: np.ndarray) -> float:
    """Return how bright an image is in the values of its file: almost all of them are not above it.

    Args:
        image: H,W,N with 255 as white, read from 16 bits without `white`.
    """
    return float(np.percentile(image, _PERCENTILE)) * 257


def propose_white(values: Sequence[float]) -> int | None:
    """Return a value for `white`, rounded up to two digits, if 16-bit images use less than half of their range.

    Args:
        values: the brightness of each image.
    """
    if not values:
        return None
    bright = round(float(np.percentile(values, _IMAGES_PERCENTILE, method="lower")))
    if not 0 < bright < _HALF:
        return None
    unit = 10 ** max(0, len(str(bright)) - 2)
    return unit * math.ceil(bright / unit)


def describe(white: int) -> str:
    """Say in one line what the images are like."""
    return f"99.9% of the values in the 16-bit images are below {white + 1}, so the network sees dark images"
