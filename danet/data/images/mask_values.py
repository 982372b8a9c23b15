"""The values of a mask as its file stores them: Pillow scales and inverts some, and lossy formats change them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from danet.data.images.formats import LOSSY, Stream
from danet.data.images.pages import tiff_directories
from danet.data.images.pillow import MAX_PIXELS, open_image
from danet.errors import InputError

_COMPRESSION = 259
_LOSSY_TIFF = {6: "JPEG", 7: "JPEG", 34712: "JPEG2000", 50001: "WebP", 50002: "JPEG XL"}
_LARGEST = {"L;2": 3, "L;4": 15}  # raw mode -> the largest value of 2 or 4 bits


class Coding(NamedTuple):
    """How Pillow changes the values of a gray image so that the largest is white.

    Args:
        largest: the largest value that the file may store.
        white: what Pillow makes of it, 255 or 65535.
        inverted: whether 0 is white in the file (a TIFF's "MinIsWhite"), and Pillow inverts it.
    """

    largest: int
    white: int
    inverted: bool = False

    def undo(self, decoded: np.ndarray) -> np.ndarray:
        """Return H,W,N values as stored, of the same type, from those that Pillow decoded."""
        shown = self.white - decoded if self.inverted else decoded
        return np.rint(shown * (self.largest / self.white)).astype(decoded.dtype)


def coding_of(image: Image.Image) -> Coding | None:
    """Return how Pillow changes the values of an image, opened but not decoded yet; None if it keeps them.

    1 bit is kept: 0 is black and 1 is white, however the file stores them.
    """
    assert isinstance(image, ImageFile.ImageFile)
    decoder, args = (image.tile[0].codec_name, image.tile[0].args) if image.tile else ("", None)
    if decoder in ("ppm", "ppm_plain") and isinstance(args, tuple) and len(args) > 1:
        largest, white = args[1], 65535 if image.mode == "I" else 255
        return Coding(largest, white) if largest != white else None
    raw = args[0] if isinstance(args, tuple) and args else args
    if not isinstance(raw, str) or not raw.startswith("L"):
        return None
    largest, inverted = _LARGEST.get(raw[:3], 255), "I" in raw
    return Coding(largest, 255, inverted) if largest < 255 or inverted else None


def has_one_bit(path: Path) -> bool:
    """Return whether a mask has 1 bit per pixel."""
    try:
        with open_image(path, MAX_PIXELS, decode=False) as image:
            return image.mode == "1"
    except InputError:  # a TIFF that Pillow does not read, or damaged
        return False


def check_lossless(image: Image.Image, path: Path | str, content: str) -> None:
    """Check that a mask is not stored in a lossy format, nor as a TIFF with a lossy compression.

    Args:
        image: the mask.
        path: its file, for messages.
        content: what a lossy format changes: "values" or "colors".

    Raises:
        InputError: it is.
    """
    if image.format in LOSSY:
        raise _lossy(image.format, path, content)
    if isinstance(image, TiffImageFile):
        _check_compression(image.tag_v2.get(_COMPRESSION), path, content)


def check_lossless_tiff(file: Stream, path: Path | str, content: str) -> None:
    """Check that an open TIFF, which Pillow need not know, has no lossy compression; the file is rewound.

    Raises:
        InputError: it has.
    """
    try:
        compression = next(tiff_directories(file)).get(_COMPRESSION)
    except Exception:  # a damaged file, which decoding reports
        return
    finally:
        file.seek(0)
    _check_compression(compression, path, content)


def check_alpha(alpha: np.ndarray, path: Path | str) -> None:
    """Check that the pixels of a mask are equally transparent; otherwise transparency may have a meaning.

    Raises:
        InputError: they are not.
    """
    if alpha.min() != alpha.max():
        raise InputError(path, "a mask with transparent and opaque pixels", "save it without transparency")


def _check_compression(compression: object, path: Path | str, content: str) -> None:
    if kind := _LOSSY_TIFF.get(compression) if isinstance(compression, int) else None:
        raise _lossy(f"a TIFF with {kind} compression", path, content)


def _lossy(kind: str, path: Path | str, content: str) -> InputError:
    return InputError(path, f"a mask in a lossy format ({kind}), which changes {content}", "save masks as PNG")
