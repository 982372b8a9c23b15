"""Tell the images that danet predict writes, such as a_labels.png, from the images and masks of the user."""

import struct
from pathlib import Path

from danet.data.images.geotiff import SOFTWARE, read_software
from danet.files import open_regular

MARK = "danet"
"""Keyword of the text in a PNG of danet: the ends of the names of the files that are written with it."""

_LABELS = ("_labels.png", "_labels.tif")
_RESULTS = (*_LABELS, "_overlay.png", "_margin.png")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = 1 << 16  # bytes, in which a text is searched


def is_result(file: Path) -> bool:
    """Return whether an image is a result of danet: by its name, and by what danet writes into its results."""
    if file.name.endswith(".tif"):
        return file.name.endswith(_RESULTS) and read_software(file) == SOFTWARE
    return (file.name.endswith(_RESULTS) or "_probability_" in file.name) and read_mark(file) is not None


def is_label_map(file: Path) -> bool:
    """Return whether an image is a label map of danet, which masks may be."""
    return file.name.endswith(_LABELS) and is_result(file)


def read_mark(path: Path) -> str | None:
    """Return the text with the keyword `MARK` that a PNG has before its pixels; None if it has none, or is no PNG."""
    try:
        with open_regular(path) as file:
            start = file.read(_HEAD)
    except (OSError, ValueError):
        return None
    at, kind = len(_SIGNATURE), b""
    while start.startswith(_SIGNATURE) and at + 8 <= len(start) and kind != b"IDAT":
        length, kind = struct.unpack_from(">I4s", start, at)
        key, _, text = start[at + 8 : at + 8 + length].partition(b"\0")
        if kind == b"tEXt" and key == MARK.encode():
            return text.decode("latin-1")
        at += 12 + length
    return None
