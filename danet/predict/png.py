"""Encode PNG images with very long rows in little memory, and read a text in a PNG.

Pillow's encoder holds copies of a row, to choose filters. They are copies of the image if it has a single row.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from danet.files import open_regular

LONG_ROW = 1 << 20
"""Pixels of a row from which on its copies would matter."""

_COLOR_TYPES = {"L": 0, "RGB": 2, "P": 3}
_PIECE = 1 << 20  # pixels
_NO_FILTER = b"\0"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = 1 << 16  # bytes, in which a text is searched


def encode_long_rows(image: Image.Image, level: int, strategy: int, texts: Mapping[str, str]) -> bytes:
    """Encode an image of mode L, P or RGB as PNG without filters, reading a piece of a row at a time.

    Args:
        image: the image.
        level: of compression, as in zlib.
        strategy: of compression, as in zlib.
        texts: keyword -> text that is stored too; both in Latin-1.
    """
    file = io.BytesIO(_SIGNATURE)
    file.seek(0, io.SEEK_END)
    _write_chunk(file, b"IHDR", struct.pack(">2I5B", *image.size, 8, _COLOR_TYPES[image.mode], 0, 0, 0))
    if image.mode == "P":
        _write_chunk(file, b"PLTE", bytes(image.getpalette() or ()))
    for keyword, text in texts.items():
        _write_chunk(file, b"tEXt", f"{keyword}\0{text}".encode("latin-1"))
    compress = zlib.compressobj(level, strategy=strategy)
    for y in range(image.height):
        content = compress.compress(_NO_FILTER)
        for start in range(0, image.width, _PIECE):
            piece = image.crop((start, y, min(start + _PIECE, image.width), y + 1))
            content += compress.compress(piece.tobytes())
            if len(content) >= _PIECE:
                _write_chunk(file, b"IDAT", content)
                content = b""
        _write_chunk(file, b"IDAT", content)
    _write_chunk(file, b"IDAT", compress.flush())
    _write_chunk(file, b"IEND", b"")
    return file.getvalue()


def read_text(path: Path, keyword: str) -> str | None:
    """Return the text with a keyword that a PNG has before its pixels; None if it has none, or is no PNG."""
    try:
        with open_regular(path) as file:
            start = file.read(_HEAD)
    except (OSError, ValueError):
        return None
    at, kind = len(_SIGNATURE), b""
    while start.startswith(_SIGNATURE) and at + 8 <= len(start) and kind != b"IDAT":
        length, kind = struct.unpack_from(">I4s", start, at)
        key, _, text = start[at + 8 : at + 8 + length].partition(b"\0")
        if kind == b"tEXt" and key == keyword.encode():
            return text.decode("latin-1")
        at += 12 + length
    return None


def _write_chunk(file: io.BytesIO, kind: bytes, content: bytes) -> None:
    if content or kind != b"IDAT":
        for part in (struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))):
            file.write(part)
