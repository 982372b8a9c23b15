"""Read the keys of dataset.yaml about classes: names, colors and mask values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danet.data.classes import IGNORE, Classes, Color, LabelMap
from danet.errors import InputError

_MAX_VALUE = 65535


def read_classes(file: Path, values: Mapping[str, Any], palette_key: str) -> Classes:
    """Read `classes`, and their colors from `palette_key`: "palette", which is optional, or "colors"."""
    names = values.get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        wrong = next((name for name in names if not isinstance(name, str)), names) if isinstance(names, list) else names
        remedy = "write classes: [background, crack], with quotes around words that YAML converts ('no', '1')"
        raise InputError(file, f"classes: must be a list of names, got {wrong!r}", remedy)
    palette = values.get(palette_key)
    if palette is None and palette_key == "palette":
        return Classes.named(tuple(names))
    if not isinstance(palette, list) or not all(_is_color(color) for color in palette):
        what = f"{palette_key}: must be a list of colors [r, g, b] with values from 0 to 255"
        raise InputError(file, what, f"for example: {palette_key}: [[0, 0, 0], [255, 0, 0]]")
    if len(palette) != len(names):
        what = f"{palette_key}: must have one color for each of the {len(names)} classes, got {len(palette)}"
        raise InputError(file, what, "write one [r, g, b] per class")
    return Classes(tuple(names), tuple(tuple(color) for color in palette))


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def read_ignored_color(file: Path, values: Mapping[str, Any]) -> Color | None:
    """Read `ignore` of a dataset.yaml with `colors`."""
    ignore = values.get("ignore")
    if ignore is None:
        return None
    if not _is_color(ignore) or ignore in values["colors"]:
        what = f"ignore: must be a color [r, g, b] that no class has, got {ignore!r}"
        raise InputError(file, what, "for example: ignore: [255, 255, 255]")
    return ignore[0], ignore[1], ignore[2]


def read_label_map(file: Path, values: Mapping[str, Any], count: int) -> LabelMap:
    """Read `ignore` and `label_map` of a dataset.yaml without `colors`.

    Args:
        file: dataset.yaml, for messages.
        values: its keys and values.
        count: the number of classes.
    """
    ignore = values.get("ignore", IGNORE)
    if type(ignore) is not int or not 0 <= ignore <= _MAX_VALUE:
        what = f"ignore: must be a mask value from 0 to {_MAX_VALUE}, got {ignore!r}"
        raise InputError(file, what, "for example: ignore: 255")
    mapping = values.get("label_map")
    if mapping is None:
        return LabelMap.identity(count, ignore)
    if not isinstance(mapping, Mapping) or not all(type(v) is int for pair in mapping.items() for v in pair):
        what = f"label_map: must map mask values to class ids, got {mapping!r}"
        raise InputError(file, what, "for example: label_map: {0: 0, 255: 1}")
    return LabelMap({ignore: IGNORE, **mapping}, count)
