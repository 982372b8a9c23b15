"""Checks of an open image file that decoders leave out: damage that they do not notice, and work beyond its size."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from danet.data.images.formats import Stream
from danet.errors import InputError

MAX_SCANS = 100
"""JPEGs with more scans are refused. Encoders write about 10."""

_MAX_SEGMENTS = 10_000
_BLOCK = 1 << 16
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_TILE_WIDTH, _TILE_HEIGHT = 322, 323


def check_tiles(image: Image.Image, path: Path | str, max_pixels: int) -> None:
    """Check the size of the tiles of a TIFF, which are decoded as a whole, however small the image is.

    Raises:
        InputError: they have more pixels than the limit.
    """
    if isinstance(image, TiffImageFile):
        width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
        if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
            what = f"stored in tiles of {width} x {height}: more pixels than the limit of {max_pixels:,}"
            raise InputError(path, what, "write it with smaller tiles")


def check_png(file: Stream) -> None:
    """Check the checksum of the pixels of an open PNG. The position in the file does not change.

    Pillow ignores the checksum and decodes damaged pixels without an error.

    Raises:
        ValueError: the checksum is wrong.
    """
    for kind, length in png_chunks(file):
        if kind == b"IDAT":
            checksum = zlib.crc32(kind)
            for start in range(0, length, _BLOCK):
                checksum = zlib.crc32(file.read(min(_BLOCK, length - start)), checksum)
            if checksum.to_bytes(4, "big") != file.read(4):
                raise ValueError("the checksum of its pixels is wrong")


def png_chunks(file: Stream) -> Iterator[tuple[bytes, int]]:
    """Yield the type and length of each chunk of an open PNG; the file is at its content. Other files have none."""
    place = file.tell()
    file.seek(0)
    start = 8 if file.read(8) == b"\x89PNG\r\n\x1a\n" else None
    while start is not None:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            break
        length = int.from_bytes(head[:4], "big")
        yield head[4:], length
        start += length + 12
    file.seek(place)


def check_scans(file: Stream, path: Path | str) -> None:
    """Check the number of scans of an open JPEG. The position in the file does not change.

    Each scan of a progressive JPEG is decoded over all pixels, and a few bytes are enough for one.

    Raises:
        InputError: there are more than `MAX_SCANS`, or far too many segments.
    """
    place = file.tell()
    file.seek(0)
    if file.read(2) == b"\xff\xd8":
        scans = 0
        for count, kind in enumerate(_jpeg_segments(file)):
            scans += kind == _START_OF_SCAN
            if scans > MAX_SCANS or count > _MAX_SEGMENTS:
                what = f"a JPEG of more than {MAX_SCANS} scans or {_MAX_SEGMENTS:,} segments"
                raise InputError(path, what, "save it again")
    file.seek(place)


def _jpeg_segments(file: Stream) -> Iterator[int]:
    """Yield the marker of each segment of an open JPEG, until the end of its first image."""
    start = file.tell()
    while (found := _next_marker(file, start)) is not None and found[0] != _END_OF_IMAGE:
        kind, start = found
        yield kind
        file.seek(start)
        start += max(2, int.from_bytes(file.read(2), "big"))


def _next_marker(file: Stream, start: int) -> tuple[int, int] | None:
    """Return the next marker of a segment or of the end, and the place behind it."""
    size = 16  # most segments follow each other at once
    file.seek(start)
    while len(block := file.read(size)) > 1:
        if found := _MARKER.search(block):
            return found[0][1], start + found.end()
        start += len(block) - 1  # the last byte may begin a marker
        file.seek(start)
        size = _BLOCK
    return None
