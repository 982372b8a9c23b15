"""PNGs of 16-bit colors, or gray with alpha, with all their bits: Pillow keeps 8 of them."""

from pathlib import Path

import numpy as np
from PIL import ImageFile

from danet.data.images.checks import check_png
from danet.data.images.formats import Stream
from danet.data.images.pages import check_pages, find_pages
from danet.data.images.pillow import damage_errors, open_stream, turn_upright

_BANDS = {b"\x10\x02": 3, b"\x10\x04": 2, b"\x10\x06": 4}  # depth and color type -> bands


def deep_bands(file: Stream) -> int:
    """Return the number of bands of an open PNG of 16 bits that Pillow reduces to 8; 0 for all other files."""
    start = file.read(26)
    file.seek(0)
    return _BANDS.get(start[24:], 0) if start[:4] == b"\x89PNG" else 0


def read_deep_png(
    file: Stream, name: Path | str, max_pixels: int, upright: bool, bands: int
) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Read a PNG of 16-bit colors, or gray with alpha, as H,W,N uint16; and the color it declares as transparent.

    Pillow keeps one byte of each value: the high byte if the raw mode is big-endian, the low byte if it is
    little-endian. So the file is decoded once for each. Gray with alpha has the four bytes of RGBA.

    Args:
        file: the open file.
        name: its name, for messages.
        max_pixels: the limit on the number of pixels.
        upright: whether the EXIF orientation is applied.
        bands: as `deep_bands` returns them.

    Raises:
        InputError: not a complete, still image with at most `max_pixels`.
    """
    parts, transparent = [], None
    with damage_errors(name):
        check_png(file)
    for order in "BL" if bands > 2 else "B":
        file.seek(0)
        with open_stream(file, name, max_pixels, decode=False) as image:
            assert isinstance(image, ImageFile.ImageFile)
            check_pages(len(find_pages(file, image)), name, None)
            raw = f"{image.mode};16{order}" if bands > 2 else "RGBA"
            image.tile = [tile._replace(args=raw) for tile in image.tile]
            parts.append(np.asarray(turn_upright(image) if upright else image).astype(np.uint16))
            transparent = image.info.get("transparency")
    high, low = parts if bands > 2 else (parts[0][..., 0::2], parts[0][..., 1::2])
    return high << 8 | low, transparent
