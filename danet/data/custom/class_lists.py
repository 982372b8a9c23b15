"""Find and read lists of class names in a user's folder, with the mask value or color of each class if they give it.

Known forms: a name per line; VALUE NAME or NAME VALUE lines; CVAT's labelmap.txt (NAME:R,G,B::); R G B NAME lines;
CSV files with columns for name, value or color, such as Roboflow's _classes.csv and class_dict.csv; and Supervisely's
obj_class_to_machine_color.json.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from danet.data.classes import IGNORE, Color
from danet.data.custom.layout import Layout
from danet.errors import InputError
from danet.files import read_limited
from danet.text import decode_text

_FILES = (
    *("_classes.csv", "class_dict.csv", "class_dict_seg.csv", "labels_class_dict.csv", "classes.csv", "colormap.csv"),
    *("label_colors.csv", "obj_class_to_machine_color.json", "labelmap.txt", "label_colors.txt", "classes.txt"),
    *("class_names.txt", "labels.txt", "label_names.txt"),
)
"""Names of lists in lower case; those that usually give values or colors first."""

_COLUMNS = {
    "name": ("name", "class", "class name", "classname", "label", "label name", "category", "object"),
    "value": ("value", "pixel value", "mask value", "id", "class id", "label id", "index", "class index"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
}
_LINES = (  # every line of a text file has the same form; the first that fits all of them
    re.compile(r"(?P<name>[^:]+):(?P<r>\d+),(?P<g>\d+),(?P<b>\d+)(:.*)?"),
    re.compile(r"(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)[\s,:]+(?P<name>.*\S)"),
    re.compile(r"(?P<name>.*?\S)[\s,:]+(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)"),
    re.compile(r"(?P<value>\d+)\s*[\s:=,;]\s*(?P<name>.*\S)"),
    re.compile(r"(?P<name>.*?\S)\s*[:=,;]\s*(?P<value>\d+)"),
    re.compile(r"(?P<name>[^:]*[^:\s])\s*:[\d,\s]*:[^:]*:[^:]*"),  # labelmap.txt, with or without colors
    re.compile(r"(?P<name>.*[^:\s])[:\s]*"),
)
_MAX_VALUE = 65535


class Entry(NamedTuple):
    """A listed class, with the value or the color of its pixels in the masks, if the list gives them."""

    name: str
    value: int | None = None
    color: Color | None = None


@dataclass(frozen=True)
class ClassList:
    """A list of class names.

    Args:
        file: the file it was read from.
        entries: the classes in the order of the file; all have values, all have colors, or none has either.
    """

    file: Path
    entries: tuple[Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of their values, or in that of the file."""
        return tuple(entry.name for entry in sorted(self.entries, key=lambda entry: entry.value or 0))


def find_class_lists(layout: Layout) -> list[ClassList]:
    """Read the lists of class names in a folder and next to its images and masks, in the order of their usefulness.

    Lists with the same content are returned once.

    Raises:
        InputError: a line of a list has an invalid value or color.
    """
    places = {layout.root: None}
    for folders in layout.folders():
        for folder in folders[:2]:
            inside = [parent for parent in folder.parents if parent.is_relative_to(layout.root)]
            places.update(dict.fromkeys((folder, *inside)))
    files = [
        file
        for place in places
        for file in (place.iterdir() if place.is_dir() else ())
        if file.name.lower() in _FILES and file.is_file()
    ]
    found: dict[tuple[Entry, ...], ClassList] = {}
    for file in sorted(files, key=lambda file: _FILES.index(file.name.lower())):
        if entries := read_class_list(file):
            found.setdefault(entries, ClassList(file, entries))
    return list(found.values())


def read_class_list(file: Path) -> tuple[Entry, ...]:
    """Read a list of class names; return no entries if the file is not such a list.

    Raises:
        InputError: an invalid value or color, with its line.
    """
    try:
        text = decode_text(read_limited(file))
    except (OSError, ValueError) as error:
        raise InputError(file, f"cannot be read ({error})", "correct it, or move it away") from error
    read = {".csv": _read_csv, ".json": _read_json}.get(file.suffix.lower(), _read_lines)
    return tuple(read(file, text))


def _read_lines(file: Path, text: str) -> Iterable[Entry]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith(("#", "__ignore__"))]
    for form in _LINES:
        if all(form.fullmatch(line) for _, line in lines):
            matches = [(number, found.groupdict()) for number, line in lines if (found := form.fullmatch(line))]
            return [_entry(file, f"line {number}", fields) for number, fields in matches]
    return []


def _read_csv(file: Path, text: str) -> Iterable[Entry]:
    try:
        delimiter = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
        rows = [(i, row) for i, row in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), 1) if any(row)]
    except csv.Error:
        return []
    columns = _columns(rows[0][1]) if rows else {}
    if not {"name", "value"} <= columns.keys() and not {"name", "r", "g", "b"} <= columns.keys():
        return []
    table = [
        (number, {kind: row[i].strip() for kind, i in columns.items() if i < len(row)}) for number, row in rows[1:]
    ]
    if "value" in columns and not any(fields.get("value", "").isdecimal() for _, fields in table):
        return []  # another table, such as one of images and their classes
    return [_entry(file, f"line {number}", fields) for number, fields in table]


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Return the place of each known column."""
    names = [" ".join(name.lower().replace("_", " ").split()) for name in header]
    return {
        kind: names.index(found)
        for kind, known in _COLUMNS.items()
        if (found := next((n for n in known if n in names), ""))
    }


def _read_json(file: Path, text: str) -> Iterable[Entry]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(file, f"cannot be read as JSON ({error})", "correct it, or remove it") from error
    if not isinstance(content, Mapping):
        return []
    entries = []
    for name, color in content.items():
        if not isinstance(color, list) or len(color) != 3:
            raise InputError(file, f"{name!r}: must be a color [r, g, b], got {str(color)[:40]}", "correct it")
        entries.append(_entry(file, repr(name), {"name": name, **dict(zip("rgb", map(str, color), strict=True))}))
    return entries


def _entry(file: Path, place: str, fields: Mapping[str, str | None]) -> Entry:
    name, value = (fields.get("name") or "").strip(), fields.get("value")
    channels = [fields.get(channel) for channel in "rgb"]
    if not name:
        raise InputError(file, f"{place}: has no name", "correct it, or remove the line")
    if all(channel is None for channel in channels):
        return Entry(name, None if value is None else _number(file, place, "value", value, _MAX_VALUE))
    r, g, b = (_number(file, place, "color", channel or "", IGNORE) for channel in channels)
    return Entry(name, None, (r, g, b))


def _number(file: Path, place: str, field: str, text: str, largest: int) -> int:
    number = int(text) if text.strip().isdecimal() and len(text) < 20 else -1
    if not 0 <= number <= largest:
        raise InputError(file, f"{place}: {field} {text!r} is not a whole number from 0 to {largest}", "correct it")
    return number
