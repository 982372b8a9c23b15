"""Masks with one RGB color per class: `colors` in dataset.yaml.

Colors must match exactly. Masks with smoothed edges or in lossy formats contain other colors and are refused.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from danet.data.classes import IGNORE, Color
from danet.data.images.geotiff import TIFF, pillow_opens
from danet.data.images.pillow import MAX_PIXELS, open_image, regular_file
from danet.data.images.read import open_mask
from danet.errors import InputError


def read_colored_mask(path: Path | str, ids: Mapping[Color, int], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a color mask as H,W uint8 train ids.

    Args:
        path: the file.
        ids: color -> train id, or 255 for ignored pixels.
        max_pixels: the limit on the number of pixels.

    Raises:
        InputError: not a complete, readable, lossless image; or an unknown color, with the number of its pixels and the
            position of the first.
    """
    known = np.array([_code(color) for color in ids])
    order = np.argsort(known)
    codes = _codes(read_colors(path, max_pixels))
    places = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    unknown = known[order][places] != codes
    if unknown.any():
        y, x = np.argwhere(unknown)[0]
        pixels, others = int((codes == codes[y, x]).sum()), len(np.unique(codes[unknown])) - 1
        classes = len(set(ids.values()) - {IGNORE})
        what = f"color {_text(_color(int(codes[y, x])))} is not one of the {classes} classes' colors: "
        what += f"{pixels} pixel{'s' * (pixels != 1)}, the first at x={x}, y={y}"
        what += f" (and {others} other such color{'s' * (others != 1)})" if others else ""
        remedy = "add it to colors in dataset.yaml, or correct the mask (save it without smoothing, as PNG)"
        raise InputError(path, what, remedy)
    return np.array(list(ids.values()), np.uint8)[order][places]


def read_colors(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read the colors of a mask as H,W,3 uint8 RGB, exactly as stored. EXIF orientation is ignored.

    Colors of 16 bits are read if 8 bits hold them: 0, 257, 514, ..., 65535.

    Raises:
        InputError: not a complete, readable image; a lossy format; transparent pixels; numbers instead of colors.
    """
    with open_mask(path, max_pixels, "colors") as (mask, _):
        if isinstance(mask, Image.Image) and mask.mode in ("1", "L", "P", "RGB", "RGBA", "LA", "PA"):
            return np.asarray(mask.convert("RGB"))
        if not isinstance(mask, Image.Image) and mask.shape[2] == 3:
            if mask.dtype == np.uint16 and not (mask % 257).any():
                mask = (mask // 257).astype(np.uint8)
            if mask.dtype == np.uint8:
                return mask
        kind = f"mode {mask.mode}" if isinstance(mask, Image.Image) else f"{mask.shape[2]} bands of {mask.dtype}"
        raise InputError(path, f"a mask of {kind} has no colors", "save it as RGB of 8 bits, one color per class")


def count_colors(pixels: np.ndarray) -> dict[Color, int]:
    """Return the number of pixels of each color in H,W,3 uint8 RGB."""
    codes, counts = np.unique(_codes(pixels), return_counts=True)
    return {_color(code): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}


def palette_of(path: Path | str) -> tuple[Color, ...] | None:
    """Return the palette of a mask, or None if it has none or is a TIFF that Pillow does not read.

    Raises:
        InputError: not a readable image.
    """
    with regular_file(path) as file:
        if file.read(4) in TIFF and not pillow_opens(file):
            return None
    with open_image(path, MAX_PIXELS, decode=False) as image:
        if image.mode != "P":
            return None
        channels = image.getpalette("RGB") or []
        return tuple((channels[i], channels[i + 1], channels[i + 2]) for i in range(0, len(channels) - 2, 3))


def _codes(pixels: np.ndarray) -> np.ndarray:
    channels = pixels.astype(np.int32)
    return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]  # H,W


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _color(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


def _text(color: Color) -> str:
    return "[{}, {}, {}]".format(*color)
