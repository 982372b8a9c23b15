"""The file formats of images: all that Pillow reads, and HEIF with pillow-heif (the extra heif).

A few formats are told by their first bytes, whatever the file is called. Many of the others have no signature, so that
damaged or unrelated files would decode as noise; they are tried only for files with their suffix.
"""

import io
from pathlib import Path
from typing import BinaryIO

from PIL import Image

try:
    from pillow_heif import register_heif_opener
except ImportError:
    HAS_HEIF = False
else:
    HAS_HEIF = True
    register_heif_opener()

Stream = BinaryIO | io.BytesIO
"""An open file, or bytes in memory."""

HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")

_BY_CONTENT = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "HEIF")  # in Pillow's spelling
_REFUSED = {
    "EPS",  # runs Ghostscript
    "WMF",  # needs Windows
    *("BUFR", "GRIB", "HDF5"),  # recognized without being read
    "MPEG",  # a video
}

Image.init()

_BY_SUFFIX = {
    suffix: format_
    for suffix, format_ in Image.registered_extensions().items()
    if format_ in Image.OPEN and format_ not in _REFUSED
}
_COMMON = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

FORMATS = tuple(format_ for format_ in _BY_CONTENT if format_ in Image.OPEN)
"""The formats that are told by content, as Pillow names them."""

SUFFIXES = (*_COMMON, *(suffix for suffix in _BY_SUFFIX if suffix not in _COMMON))
"""The suffixes of images, in lower case; the most usual first."""

LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000", "HEIF")
"""Formats that may change the values of a mask."""

NOT_PAGES = ("MPO", "PSD")
"""Formats whose further frames are previews or layers of the same image."""


def formats_of(path: Path | str) -> tuple[str, ...]:
    """Return the formats that a file with this name may have, as Pillow names them."""
    own = _BY_SUFFIX.get(Path(path).suffix.lower())
    return FORMATS if own is None or own in FORMATS else (*FORMATS, own)
