"""Masks of one object or one class: a pixel is inside or outside.

If pixels are transparent to different degrees, those that are not entirely transparent are inside; otherwise those that
are not black.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from danet.data.images.mask_values import check_lossless
from danet.data.images.pillow import MAX_PIXELS, open_image, open_stream
from danet.errors import InputError


def read_binary_mask(path: Path, two_values: bool = False) -> Bool[np.ndarray, "H W"]:
    """Read a mask file. EXIF orientation is ignored.

    Args:
        path: the file.
        two_values: refuse masks of more than two values or colors, such as masks of several classes.

    Raises:
        InputError: not a complete, readable image with at most `MAX_PIXELS` pixels; in a lossy format; too many values.
    """
    with open_image(path, MAX_PIXELS) as image:
        check_lossless(image, path, "values")
        if two_values and _has_more_than_two_values(image):
            what = "has more than two values, but a mask of one object or class has inside and outside"
            raise InputError(path, what, "save it without smoothing, one mask per class")
        return _inside(image)


def decode_binary_mask(content: bytes, name: str) -> Bool[np.ndarray, "H W"]:
    """Decode the content of a mask file, a PNG.

    Args:
        content: the file's bytes.
        name: its name, for messages.

    Raises:
        InputError: not a complete, readable PNG with at most `MAX_PIXELS` pixels.
    """
    with open_stream(io.BytesIO(content), name, MAX_PIXELS, formats=("PNG",)) as image:
        return _inside(image)


def _has_more_than_two_values(image: Image.Image) -> bool:
    if image.mode.startswith(("I", "F")):
        return len(np.unique(np.asarray(image))) > 2
    return image.getcolors(2) is None


def _inside(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            return alpha > 0
    if image.mode not in ("1", "L", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    values = np.asarray(image)
    return np.asarray((values if values.ndim == 2 else values.max(axis=2)) > 0)
