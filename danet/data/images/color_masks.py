"""Masks whose classes are colours: read as RGB, one colour a class; `colours:` in a folder's dataset.yaml.

A colour must be met exactly. Smoothed edges and lossy formats make colours that mean nothing, and are refused.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from danet.data.classes import IGNORE, Colour
from danet.data.images.pillow import MAX_PIXELS, opened
from danet.data.images.read import check_alpha
from danet.errors import InputError


def read_coloured_mask(
    path: Path | str, colours: Sequence[Colour], ignore: Colour | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """A mask as H,W uint8 train ids: the place of each pixel's colour in `colours`, 255 where it is `ignore`.

    Raises:
        InputError: not a whole, readable lossless picture, or a colour that is none of these: the first one met, how
            many pixels have it, and where the first one is.
    """
    known = np.array([_code(colour) for colour in colours] + ([] if ignore is None else [_code(ignore)]))
    ids = np.append(np.arange(len(colours)), [] if ignore is None else [IGNORE]).astype(np.uint8)
    order = np.argsort(known)
    codes = _codes(read_colours(path, max_pixels))
    places = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    unknown = known[order][places] != codes
    if unknown.any():
        y, x = np.argwhere(unknown)[0]
        pixels, others = int((codes == codes[y, x]).sum()), len(np.unique(codes[unknown])) - 1
        raise InputError(
            path,
            f"colour {_text(_colour(int(codes[y, x])))} is none of the {len(colours)} classes' colours: {pixels} "
            f"pixels, the first at x={x}, y={y}" + (f" (and {others} other such colours)" if others else ""),
            "add it to colours in dataset.yaml, or mend the mask (saved without smoothing, as PNG)",
        )
    return ids[order][places]


def read_colours(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A mask's colours as H,W,3 uint8 RGB, exactly as stored. Not rotated by EXIF.

    Raises:
        InputError: not a whole, readable picture; a lossy format; transparent pixels; numbers instead of colours.
    """
    with opened(path, max_pixels) as image:
        if image.format in ("JPEG", "WEBP"):
            raise InputError(
                path, f"a mask in a lossy format ({image.format}): its colours are not those saved", "save masks as PNG"
            )
        if image.mode not in ("1", "L", "P", "RGB", "RGBA", "LA", "PA"):
            raise InputError(
                path, f"a mask of mode {image.mode} holds no colours", "save it as RGB, one colour a class"
            )
        check_alpha(image, path)
        return np.asarray(image.convert("RGB"))


def count_colours(pixels: np.ndarray) -> dict[Colour, int]:
    """H,W,3 uint8 RGB -> how many pixels have each colour."""
    codes, counts = np.unique(_codes(pixels), return_counts=True)
    return {_colour(code): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}


def palette_of(path: Path | str) -> tuple[Colour, ...] | None:
    """The colours of a palette picture, by their index; None for any other picture.

    Raises:
        InputError: not a readable picture.
    """
    with opened(path, MAX_PIXELS) as image:
        if image.mode != "P":
            return None
        channels = image.getpalette("RGB") or []
        return tuple((channels[i], channels[i + 1], channels[i + 2]) for i in range(0, len(channels) - 2, 3))


def _codes(pixels: np.ndarray) -> np.ndarray:
    channels = pixels.astype(np.int32)
    return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]  # H,W


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _colour(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _text(colour: Colour) -> str:
    return "[{}, {}, {}]".format(*colour)
