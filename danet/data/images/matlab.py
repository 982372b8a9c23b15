"""Masks in MATLAB's .mat files (level 5: "-v6" and "-v7"), the format of SBD, PASCAL Context and COCO-Stuff 10k.

A file consists of a header and elements; an element consists of a tag (its kind and size) and data. A matrix is an
element of elements: flags, shape and name, then its numbers or the fields of a struct (MathWorks, MAT-File Format).
scipy reads more kinds of files, but damaged files can crash the process: 3 of 1,000 uncompressed files with flipped
bits did.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from danet.data.images.read import MAX_PIXELS
from danet.errors import InputError
from danet.files import read_limited

_HEADER, _VERSION_AND_ORDER = 128, b"\x00\x01IM"  # level 5, little-endian
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_STRUCT_CLASS, _NUMBER_CLASSES = 2, range(6, 16)


class _Matrix(NamedTuple):
    name: str
    shape: tuple[int, ...]
    class_: int
    parts: list[tuple[int, memoryview]]


def read_mat(path: Path, field: str) -> np.ndarray:
    """Read a mask as H,W uint16.

    Args:
        path: the file.
        field: a variable ("S"), or a field of a 1 x 1 struct ("GTcls.Segmentation").

    Raises:
        InputError: the file is damaged, or has no such matrix of whole numbers from 0 to 65535.
    """
    variable, *nested = field.split(".")
    try:
        matrix = _variable(read_limited(path, 8 * MAX_PIXELS), variable)
        for name in nested:
            matrix = _field(matrix, name)
        return _ids(matrix)
    except (OSError, ValueError, LookupError, OverflowError, RecursionError, struct.error, zlib.error) as error:
        raise InputError(path, f"truncated or damaged: cannot read {field} ({error})", "copy it again") from error


def _variable(data: bytes, name: str) -> _Matrix:
    if data[_HEADER - 4 : _HEADER] != _VERSION_AND_ORDER:
        raise ValueError("not a MATLAB level 5 file")
    for kind, content in _elements(memoryview(data)[_HEADER:]):
        if kind == _MATRIX and (matrix := _matrix(content)).name == name:
            return matrix
    raise ValueError("no such variable")


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the kind and the content of each element; compressed ones are inflated."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        start, step = at + 8, size if kind == _COMPRESSED else -(-size // 8) * 8
        if kind >> 16:  # up to four bytes are stored in the tag itself
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 0
        content = data[start : start + size]
        if len(content) < size:
            raise ValueError("it ends too early")
        at += 8 + step
        if kind == _COMPRESSED:
            yield from _elements(_inflate(content))
        else:
            yield kind, content


def _inflate(content: memoryview) -> memoryview:
    inflater = zlib.decompressobj()
    data = inflater.decompress(content, 8 * MAX_PIXELS)
    if not inflater.eof:
        raise ValueError("it ends too early, or is too large")
    return memoryview(data)


def _matrix(content: memoryview) -> _Matrix:
    (_, flags), (_, shape), (_, name), *parts = _elements(content)
    return _Matrix(str(name, "latin-1"), tuple(np.frombuffer(shape, "<u4").tolist()), flags[0], parts)


def _field(matrix: _Matrix, name: str) -> _Matrix:
    if matrix.class_ != _STRUCT_CLASS or matrix.shape != (1, 1):
        raise ValueError("not a struct")
    (_, width), (_, names), *values = matrix.parts
    size = int.from_bytes(width, "little")
    fields = [str(names[i : i + size], "latin-1").rstrip("\0") for i in range(0, len(names), size)]
    return _matrix(values[fields.index(name)][1])


def _ids(matrix: _Matrix) -> np.ndarray:
    if matrix.class_ not in _NUMBER_CLASSES or len(matrix.shape) != 2 or len(matrix.parts) != 1:
        raise ValueError("not a matrix of numbers")
    kind, content = matrix.parts[0]
    values = np.frombuffer(content, _NUMBERS[kind]).reshape(matrix.shape, order="F")
    with np.errstate(invalid="ignore"):
        ids = values.astype(np.uint16, order="C")
    if (ids != values).any():
        raise ValueError("values that are not ids from 0 to 65535")
    return ids
