"""Masks whose classes are colors: read as RGB, one color a class; `colors:` in a folder's dataset.yaml.

A color must be met exactly. Smoothed edges and lossy formats make colors that mean nothing, and are refused.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from danet.data.classes import IGNORE, Color
from danet.data.images.pillow import MAX_PIXELS, opened
from danet.data.images.read import check_alpha
from danet.errors import InputError


def read_colored_mask(
    path: Path | str, colors: Sequence[Color], ignore: Color | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """A mask as H,W uint8 train ids: the place of each pixel's color in `colors`, 255 where it is `ignore`.

    Raises:
        InputError: not a whole, readable lossless image, or a color that is none of these: the first one met, how
            many pixels have it, and where the first one is.
    """
    known = np.array([_code(color) for color in colors] + ([] if ignore is None else [_code(ignore)]))
    ids = np.append(np.arange(len(colors)), [] if ignore is None else [IGNORE]).astype(np.uint8)
    order = np.argsort(known)
    codes = _codes(read_colors(path, max_pixels))
    places = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    unknown = known[order][places] != codes
    if unknown.any():
        y, x = np.argwhere(unknown)[0]
        pixels, others = int((codes == codes[y, x]).sum()), len(np.unique(codes[unknown])) - 1
        raise InputError(
            path,
            f"color {_text(_color(int(codes[y, x])))} is none of the {len(colors)} classes' colors: {pixels} "
            f"pixels, the first at x={x}, y={y}" + (f" (and {others} other such colors)" if others else ""),
            "add it to colors in dataset.yaml, or mend the mask (saved without smoothing, as PNG)",
        )
    return ids[order][places]


def read_colors(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A mask's colors as H,W,3 uint8 RGB, exactly as stored. Not rotated by EXIF.

    Raises:
        InputError: not a whole, readable image; a lossy format; transparent pixels; numbers instead of colors.
    """
    with opened(path, max_pixels) as image:
        if image.format in ("JPEG", "WEBP"):
            raise InputError(
                path, f"a mask in a lossy format ({image.format}): its colors are not those saved", "save masks as PNG"
            )
        if image.mode not in ("1", "L", "P", "RGB", "RGBA", "LA", "PA"):
            raise InputError(path, f"a mask of mode {image.mode} holds no colors", "save it as RGB, one color a class")
        check_alpha(image, path)
        return np.asarray(image.convert("RGB"))


def count_colors(pixels: np.ndarray) -> dict[Color, int]:
    """H,W,3 uint8 RGB -> how many pixels have each color."""
    codes, counts = np.unique(_codes(pixels), return_counts=True)
    return {_color(code): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}


def palette_of(path: Path | str) -> tuple[Color, ...] | None:
    """The colors of a palette image, by their index; None for any other image.

    Raises:
        InputError: not a readable image.
    """
    with opened(path, MAX_PIXELS) as image:
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
