"""Encode PNG images with very long rows in little memory.

Pillow's encoder holds copies of a row, to choose filters. They are copies of the image if it has a single row.
"""

import io
import struct
import zlib
from collections.abc import Mapping

from PIL import Image

LONG_ROW = 1 << 20
"""Pixels of a row from which on its copies would matter."""

_COLOR_TYPES = {"L": 0, "RGB": 2, "P": 3}
_PIECE = 1 << 20  # pixels
_NO_FILTER = b"\0"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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


def _write_chunk(file: io.BytesIO, kind: bytes, content: bytes) -> None:
    if content or kind != b"IDAT":
        for part in (struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))):
            file.write(part)
