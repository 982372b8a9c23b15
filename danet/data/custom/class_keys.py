"""Read the keys of dataset.yaml about classes: names, colors and mask values, and which classes are merged or kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from danet.data.classes import IGNORE, Classes, Color, LabelMap
from danet.data.images.color_masks import read_colored_mask
from danet.data.images.read import read_mask
from danet.errors import InputError, unknown_name

CLASS_KEYS = ("classes", "palette", "colors", "ignore", "label_map", "threshold", "merge", "keep", "others")

_MAX_VALUE = 65535
_OTHERS = ("background", "ignore")


class ClassSettings(NamedTuple):
    """Classes, and how masks are read as train ids: `label_map` is applied to the result of `read_mask`."""

    classes: Classes
    label_map: LabelMap
    read_mask: Callable[[Path], np.ndarray]


def read_class_settings(file: Path, values: Mapping[str, Any]) -> ClassSettings:
    """Read the keys about classes.

    Args:
        file: dataset.yaml, for messages.
        values: its keys and values.

    Raises:
        InputError: an invalid value.
    """
    names = _names(file, values)
    if "colors" not in values:
        listed = Classes.named(names) if values.get("palette") is None else Classes(names, _palette(file, values))
        classes, train_ids = _group(file, values, listed)
        mapping = _label_map(file, values, len(names))
        targets = {value: target if target == IGNORE else train_ids[target] for value, target in mapping.items()}
        read = partial(read_mask, white=255) if "threshold" in values else read_mask
        return ClassSettings(classes, LabelMap(targets, len(classes)), read)
    if both := [key for key in ("palette", "label_map", "threshold") if key in values]:
        remedy = f"remove {both[0]}: colors define the class of each pixel, and its display color"
        raise InputError(file, f"{both[0]} and colors exclude each other", remedy)
    colors = _colors(file, values, len(names))
    classes, train_ids = _group(file, values, Classes(names, tuple(own[0] for own in colors)))
    ids = {color: train_id for own, train_id in zip(colors, train_ids, strict=True) for color in own}
    ids |= dict.fromkeys(_ignored_colors(file, values, ids), IGNORE)
    return ClassSettings(classes, LabelMap.identity(len(classes)), partial(read_colored_mask, ids=ids))


def _names(file: Path, values: Mapping[str, Any]) -> tuple[str, ...]:
    names = values.get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        wrong = next((name for name in names if not isinstance(name, str)), names) if isinstance(names, list) else names
        remedy = "write classes: [background, crack], with quotes around words that YAML converts ('no', '1')"
        raise InputError(file, f"classes: must be a list of names, got {wrong!r}", remedy)
    return tuple(names)


def _palette(file: Path, values: Mapping[str, Any]) -> tuple[Color, ...]:
    palette = values["palette"]
    if not isinstance(palette, list) or not all(_is_color(color) for color in palette):
        what = "palette: must be a list of colors [r, g, b] with values from 0 to 255"
        raise InputError(file, what, "for example: palette: [[0, 0, 0], [255, 0, 0]]")
    return tuple(tuple(color) for color in _one_per_class(file, "palette", palette, len(values["classes"])))


def _colors(file: Path, values: Mapping[str, Any], count: int) -> list[tuple[Color, ...]]:
    """Return the colors of each class."""
    colors = values["colors"]
    if not isinstance(colors, list) or not all(_is_color(own) or _are_colors(own) for own in colors):
        what = "colors: must be a list of colors [r, g, b] with values from 0 to 255, or of several colors per class"
        raise InputError(file, what, "for example: colors: [[0, 0, 0], [255, 0, 0]]")
    own_colors = [_as_colors(own) for own in _one_per_class(file, "colors", colors, count)]
    flat = [color for own in own_colors for color in own]
    if len(set(flat)) < len(flat):
        raise InputError(file, "colors: two classes have the same color", "use a different color for each class")
    return own_colors


def _one_per_class(file: Path, key: str, colors: list, count: int) -> list:
    if len(colors) != count:
        what = f"{key}: must have one color for each of the {count} classes, got {len(colors)}"
        raise InputError(file, what, "write one [r, g, b] per class")
    return colors


def _ignored_colors(file: Path, values: Mapping[str, Any], known: Mapping[Color, int]) -> tuple[Color, ...]:
    ignore = values.get("ignore")
    if ignore is None:
        return ()
    colors = _as_colors(ignore) if _is_color(ignore) or _are_colors(ignore) else ()
    if not colors or known.keys() & set(colors):
        what = f"ignore: must be a color [r, g, b] (or a list of colors) that no class has, got {ignore!r}"
        raise InputError(file, what, "for example: ignore: [255, 255, 255]")
    return colors


def _label_map(file: Path, values: Mapping[str, Any], count: int) -> dict[int, int]:
    """Return mask value -> position in `classes`, or 255."""
    ignore = values.get("ignore", IGNORE)
    ignored = ignore if isinstance(ignore, list) else [ignore]
    if not ignored or not all(type(value) is int and value <= _MAX_VALUE for value in ignored):
        what = f"ignore: must be a mask value up to {_MAX_VALUE}, or a list of them, got {ignore!r}"
        raise InputError(file, what, "for example: ignore: 255")
    if "threshold" in values:
        return _thresholded(file, values, count) | dict.fromkeys(ignored if "ignore" in values else (), IGNORE)
    mapping = values.get("label_map", {i: i for i in range(count)})
    if not isinstance(mapping, Mapping) or not all(type(v) is int for pair in mapping.items() for v in pair):
        what = f"label_map: must map mask values to class ids, got {mapping!r}"
        raise InputError(file, what, "for example: label_map: {0: 0, 255: 1}")
    used = [value for value in ignored if value != IGNORE and mapping.get(value, IGNORE) != IGNORE]
    if used and "label_map" in values:
        what = f"ignore and label_map disagree about the mask value {used[0]}"
        raise InputError(file, what, "remove it from one of them")
    void = dict.fromkeys(ignored, IGNORE)
    return LabelMap({**void, **mapping} if "label_map" in values else {**mapping, **void}, count).mapping


def _thresholded(file: Path, values: Mapping[str, Any], count: int) -> dict[int, int]:
    """Return the label map of 8-bit masks of two classes whose edges are smoothed."""
    threshold = values["threshold"]
    if type(threshold) is not int or not 1 <= threshold <= 255:
        what = f"threshold: must be a mask value from 1 to 255, got {threshold!r}"
        raise InputError(file, what, "for example: threshold: 128")
    if count != 2:
        raise InputError(file, f"threshold: separates two classes, but there are {count}", "remove the line")
    if "label_map" in values:
        raise InputError(file, "threshold and label_map exclude each other", "remove one of them")
    return {value: int(value >= threshold) for value in range(256)}


def _group(file: Path, values: Mapping[str, Any], listed: Classes) -> tuple[Classes, list[int]]:
    """Apply `merge` and `keep`.

    Returns:
        The classes after that, and the train id of each listed class, or 255.
    """
    members = _merged(file, values, listed)
    kept = _kept(file, values, members)
    others = [name for name in members if name not in kept]
    groups = {name: members[name] for name in members if name in kept}
    if others and values["others"] == "background":
        rest = [listed_name for name in others for listed_name in members[name]]
        groups = {"background": [*groups.pop("background", []), *rest], **groups}
    train_ids = {name: i for i, own in enumerate(groups.values()) for name in own}
    color_of = dict(zip(listed.names, listed.palette, strict=True))
    palette = tuple(color_of.get(name, color_of[own[0]]) for name, own in groups.items())
    return Classes(tuple(groups), palette), [train_ids.get(name, IGNORE) for name in listed.names]


def _merged(file: Path, values: Mapping[str, Any], listed: Classes) -> dict[str, list[str]]:
    """Return class -> listed classes, in the order of their first listed class."""
    merge = values.get("merge", {})
    if not isinstance(merge, Mapping) or not all(_is_list_of_names(own) for own in merge.values()):
        remedy = "for example: merge: {vehicle: [car, bus]}"
        raise InputError(file, f"merge: must map new names to lists of classes, got {merge!r}", remedy)
    target: dict[str, str] = {}
    for new, own in merge.items():
        for name in own:
            _check_listed(file, "merge", name, listed.names)
            if name in target:
                raise InputError(file, f"merge: {name!r} is listed twice", "list each class once")
            target[name] = str(new)
        if new in listed.names and new not in own:
            what = f"merge: {new!r} is the name of a class that is not merged"
            raise InputError(file, what, f"choose another name, or add {new} to its list")
    members: dict[str, list[str]] = {}
    for name in listed.names:
        members.setdefault(target.get(name, name), []).append(name)
    return members


def _kept(file: Path, values: Mapping[str, Any], members: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if "keep" not in values:
        if "others" in values:
            raise InputError(file, "others: has no meaning without keep", "add keep: [CLASS, ...], or remove the line")
        return tuple(members)
    kept = values["keep"]
    if not _is_list_of_names(kept):
        raise InputError(file, f"keep: must be a list of classes, got {kept!r}", "for example: keep: [road, car]")
    for name in kept:
        _check_listed(file, "keep", name, members)
    if values.get("others") not in _OTHERS:
        remedy = "write others: background or others: ignore"
        raise InputError(file, "others: must say what the classes that are not kept become", remedy)
    return kept


def _check_listed(file: Path, key: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> None:
    if name not in known:
        error = unknown_name(file, name, known)
        raise InputError(file, f"{key}: {error.what}", error.remedy)


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def _are_colors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_color(color) for color in value)


def _as_colors(value: list) -> tuple[Color, ...]:
    colors = [value] if _is_color(value) else value
    return tuple((color[0], color[1], color[2]) for color in colors)
