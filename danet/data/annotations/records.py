"""Read JSON, XML, CSV and text files of annotation tools; each value knows its place in its file, for error messages.

Files are bounded in size. XML with a DOCTYPE is refused, so that no entity is ever expanded.
"""

import base64
import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from jaxtyping import Float64

from danet.data.classes import Color
from danet.data.images.pillow import regular_file
from danet.errors import InputError
from danet.files import format_bytes
from danet.text import decode_text

MAX_BYTES = 1 << 29
"""Larger annotation files are refused; the largest one of COCO has 470 MB."""

MAX_COORDINATE = 1_000_000
"""Points farther away than any image is large are refused."""

_MAX_DEPTH = 32  # of XML elements
_EXPORT_AGAIN = "correct it, or export again"


@dataclass(frozen=True, slots=True)
class Record:
    """A value in an annotation file, and its place.

    Args:
        file: the file.
        place: in the file, such as "annotations[3].bbox" or "line 12"; "" for the whole file.
        value: as parsed.
    """

    file: Path
    place: str
    value: Any

    def __str__(self) -> str:
        return f"{self.file}: {self.place}" if self.place else str(self.file)

    def error(self, what: str, remedy: str = _EXPORT_AGAIN) -> InputError:
        """Return the error for a wrong value."""
        return InputError(self.file, f"{self.place}: {what}" if self.place else what, remedy)

    def __getitem__(self, key: str) -> "Record":
        """Return the value of a key.

        Raises:
            InputError: not an object, or it has no such key.
        """
        if (found := self.get(key)) is None:
            raise self.error(f"has no {key!r}")
        return found

    def get(self, key: str) -> "Record | None":
        """Return the value of a key, or None if there is no such key, or its value is null.

        Raises:
            InputError: not an object.
        """
        value = self._typed(Mapping, "an object").get(key)
        return None if value is None else Record(self.file, f"{self.place}.{key}" if self.place else key, value)

    def entries(self) -> "Iterator[tuple[str, Record]]":
        """Yield the keys and values of an object."""
        for key, value in self._typed(Mapping, "an object").items():
            yield key, Record(self.file, f"{self.place}[{_short(key)}]", value)

    def items(self) -> "Iterator[Record]":
        """Yield the elements of a list."""
        for i, value in enumerate(self._typed(list, "a list")):
            yield Record(self.file, f"{self.place}[{i}]", value)

    def text(self) -> str:
        """Return a text, without spaces around it; a number is converted.

        Raises:
            InputError: neither a text nor a number, or it is empty.
        """
        text = str(self.value).strip() if type(self.value) in (str, int, float) else ""
        if not text or len(text) > 4096:
            raise self.error(f"must be a text, got {_short(self.value)}")
        return text

    def number(self, least: float = -MAX_COORDINATE, most: float = MAX_COORDINATE) -> float:
        """Return a number, which may be written as text.

        Raises:
            InputError: not a finite number, or outside the range.
        """
        try:
            number = float(self.value) if type(self.value) in (int, float, str) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not least <= number <= most:
            raise self.error(f"must be a number from {least:.12g} to {most:.12g}, got {_short(self.value)}")
        return number

    def whole(self, least: int = 0, most: int = MAX_COORDINATE) -> int:
        """Return a whole number, which may be written as text.

        Raises:
            InputError: not a whole number, or outside the range.
        """
        number = self.number(least, most)
        if number != round(number):
            raise self.error(f"must be a whole number, got {_short(self.value)}")
        return round(number)

    def key(self) -> str | int:
        """Return an id, a text or a whole number.

        Raises:
            InputError: it is neither.
        """
        if type(self.value) not in (str, int):
            raise self.error(f"must be an id (a number or a text), got {_short(self.value)}")
        return self.value

    def base64(self) -> bytes:
        """Decode a text in base64.

        Raises:
            InputError: it is not.
        """
        try:
            return base64.b64decode(self.value, validate=True)
        except (ValueError, TypeError) as error:
            raise self.error("is not base64") from error

    def color(self) -> Color:
        """Return a color that is written as "#RRGGBB".

        Raises:
            InputError: it is not.
        """
        text = self.text()
        try:
            red, green, blue = bytes.fromhex(text.removeprefix("#"))
        except ValueError as error:
            raise self.error(f"must be a color such as #ff8000, got {_short(text)}") from error
        return red, green, blue

    def points(self) -> Float64[np.ndarray, "N 2"]:
        """Return the points of a list [[x, y], ...].

        Raises:
            InputError: not such a list, or a coordinate is not finite or far outside every image.
        """
        points = self._array()
        if points.size == 0:
            return np.zeros((0, 2))
        if points.ndim != 2 or points.shape[1] != 2:
            raise self.error("must be a list of points [x, y]")
        return self.bounded(points)

    def flat_points(self) -> Float64[np.ndarray, "N 2"]:
        """Return the points of a list [x, y, x, y, ...].

        Raises:
            InputError: not such a list, or a coordinate is not finite or far outside every image.
        """
        values = self._array()
        if values.ndim != 1 or len(values) % 2:
            got = f"{len(values)} numbers" if values.ndim == 1 else _short(self.value)
            raise self.error(f"must be a list of numbers x, y, x, y, ..., got {got}")
        return self.bounded(values.reshape(-1, 2))

    def numbers(self) -> Float64[np.ndarray, " N"]:
        """Return a list of numbers.

        Raises:
            InputError: not such a list.
        """
        values = self._array()
        if values.ndim != 1:
            raise self.error("must be a list of numbers")
        return values

    def _array(self) -> np.ndarray:
        values = self._typed(list, "a list")
        try:
            return np.array(values, np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise self.error("must be a list of numbers") from error

    def bounded(self, points: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, "N 2"]:
        """Return points after a check.

        Raises:
            InputError: a coordinate is not finite or far outside every image.
        """
        if (wrong := np.argwhere(~(np.abs(points) <= MAX_COORDINATE))).size:
            point, axis = wrong[0]
            raise self.error(f"point {point}: {'xy'[axis]} must be within any image, got {points[point, axis]:g}")
        return points

    def _typed(self, kind: type, name: str) -> Any:
        if not isinstance(self.value, kind):
            raise self.error(f"must be {name}, got {_short(self.value)}")
        return self.value


@dataclass(slots=True)
class Element:
    """An XML element.

    Args:
        tag: its name.
        record: its attributes, as a record of texts; the place is "line N <TAG>".
        children: the elements inside.
        text: the text inside.
    """

    tag: str
    record: Record
    children: "list[Element]" = field(default_factory=list)
    text: str = ""

    def find(self, tag: str) -> "Iterator[Element]":
        """Yield all elements with this tag, at any depth, in the order of the file."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.find(tag)

    def child_text(self, tag: str) -> str:
        """Return the text of the first child with this tag, or ""."""
        return next((child.text.strip() for child in self.children if child.tag == tag), "")


def read_bytes(file: Path) -> bytes:
    """Read an annotation file.

    Raises:
        InputError: it is not readable, or too large.
    """
    with regular_file(file) as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(file, f"more than {format_bytes(MAX_BYTES)}", "export fewer images at a time")
    return content


def read_text(file: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        InputError: it is not readable, too large, or in another encoding.
    """
    try:
        return decode_text(read_bytes(file))
    except ValueError as error:
        raise InputError(file, str(error), "save it as UTF-8") from error


def read_json(file: Path) -> Record:
    """Read a JSON file.

    Raises:
        InputError: it is not readable, too large, not JSON, or nested too deeply.
    """
    content = read_bytes(file)
    try:
        return Record(file, "", json.loads(content))
    except json.JSONDecodeError as error:
        what = f"invalid JSON at line {error.lineno}, column {error.colno}: {error.msg.lower()}"
        raise InputError(file, what, "export it again") from error
    except RecursionError as error:
        raise InputError(file, "invalid JSON: nested too deeply", "export it again") from error
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise InputError(file, "invalid JSON: not UTF-8, or a number is too long", "export it again") from error


def read_xml(file: Path) -> Element:
    """Read an XML file.

    Raises:
        InputError: it is not readable, too large, not XML, nested too deeply, or has a DOCTYPE.
    """
    top = Element("", Record(file, "", {}))
    path, parser = [top], expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        record = Record(file, f"line {parser.CurrentLineNumber} <{_short(tag)[1:-1]}>", attributes)
        if len(path) > _MAX_DEPTH:
            raise record.error(f"nested deeper than {_MAX_DEPTH} levels")
        path.append(Element(tag, record))
        path[-2].children.append(path[-1])

    def characters(text: str) -> None:
        path[-1].text += text

    def refuse(*_: object) -> None:
        raise InputError(file, "contains a DOCTYPE, which no annotation tool writes", "remove it, or export again")

    parser.buffer_text = True
    parser.StartElementHandler, parser.CharacterDataHandler = start, characters
    parser.EndElementHandler = lambda _: path.pop()
    parser.StartDoctypeDeclHandler = refuse
    content = read_bytes(file)
    try:
        parser.Parse(content, True)
    except InputError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError, ValueError: an unknown encoding
        raise InputError(file, f"invalid XML: {' '.join(str(error).split())[:200]}", "export it again") from error
    return top.children[0]


def read_csv(file: Path) -> Iterator[Record]:
    """Read a CSV file with a header, and yield its rows as records of texts.

    Raises:
        InputError: it is not readable, too large, not UTF-8, or not CSV; a row has another length than the header.
    """
    rows = csv.reader(read_text(file).splitlines(keepends=True))
    limit = csv.field_size_limit(MAX_BYTES)  # of the whole process
    try:
        header = [name.strip() for name in next(rows, [])]
        for row in rows:
            record = Record(file, f"line {rows.line_num}", dict(zip(header, row, strict=False)))
            if row and len(row) != len(header):
                raise record.error(f"has {len(row)} fields, but the header has {len(header)}")
            if row:
                yield record
    except csv.Error as error:
        raise InputError(file, f"line {rows.line_num}: invalid CSV ({error})", "export it again") from error
    finally:
        csv.field_size_limit(limit)


def _short(value: object) -> str:
    """Describe a value in a few characters."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    text = repr(value[:50] if isinstance(value, str) else value)
    return f"{text[:40]}..." if len(text) > 43 else text
