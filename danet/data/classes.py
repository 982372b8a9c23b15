"""Classes, with their names and colors, and label maps from mask values to train ids."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danet.data.palette import Color, distinct_palette
from danet.errors import InputError

IGNORE = 255
"""The train id that losses and metrics ignore."""

NO_DATA = 1 - (1 << 31)
"""The mask value, as read, of pixels for which a GeoTIFF declares that it has no data. They are always ignored."""

BACKGROUND = "background"
"""The name of the class of pixels without another class."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # the last: halves of characters


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, in the order of their train ids.

    Args:
        names: one per class, in the order of the train ids.
        palette: one RGB color per class, each channel in [0, 255].

    Raises:
        InputError: no classes, too many, duplicate names, names that are not a line of text, or a palette of another
            length.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]

    def __post_init__(self):
        if not 1 <= len(self.names) <= IGNORE:
            remedy = f"use 1 to {IGNORE} of them ({IGNORE} means ignore)"
            raise InputError("classes", f"{len(self.names)} names", remedy)
        for name in self.names:
            if not isinstance(name, str) or _FORBIDDEN.search(name):
                what = f"the name {name!r} is not a line of text"
                raise InputError("classes", what, "use names without line breaks and other control characters")
        if len(set(self.names)) < len(self.names):
            names = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError("classes", f"duplicate names: {', '.join(names)}", "use a different name for each class")
        if len(self.palette) != len(self.names):
            what = f"{len(self.palette)} colors for {len(self.names)} classes"
            raise InputError("palette", what, "use one [r, g, b] per class")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def named(cls, names: tuple[str, ...]) -> "Classes":
        """Return classes with these names and distinct colors, for datasets without colors; the background is black."""
        colors = iter(distinct_palette(len(names)))
        return cls(names, tuple((0, 0, 0) if is_background(name) else next(colors) for name in names))

    @property
    def uncolored(self) -> int | None:
        """The train id of the background if there is one other class: overlays then show it without a color."""
        found = [i for i, name in enumerate(self.names) if is_background(name)]
        return found[0] if len(self) == 2 and len(found) == 1 else None


def is_background(name: str) -> bool:
    """Return whether a class is everything that has no other class: "background", "Background", "_background_"."""
    return name.strip("_ ").casefold() == BACKGROUND


class LabelMap:
    """A map from the values in mask files to train ids.

    Args:
        mapping: file value -> train id, or 255 to ignore.
        classes: the number of classes.

    Raises:
        InputError: a target is neither a class nor 255; a value is above 65535, or is negative and not ignored.
    """

    def __init__(self, mapping: Mapping[int, int], classes: int):
        for value, target in mapping.items():
            if not (0 <= target < classes or target == IGNORE):
                remedy = f"map to 0..{classes - 1}, or to {IGNORE} to ignore"
                raise InputError("label_map", f"{value}: {target} is not a class", remedy)
            if value >= 1 << 16 or (value < 0 and target != IGNORE):
                remedy = f"use values from 0 to 65535; negative values can only be ignored ({IGNORE})"
                raise InputError("label_map", f"mask value {value} is out of range", remedy)
        self.mapping = dict(mapping)
        self.classes = classes
        self._table = np.full(1 << 16, _UNKNOWN, np.int16)
        for value, target in self.mapping.items():
            if value >= 0:
                self._table[value] = target
        self._bytes = self._table[:256].astype(np.uint8)

    @classmethod
    def identity(cls, classes: int, ignore: int = IGNORE) -> "LabelMap":
        """Return the map from each class to itself, and from one file value to ignore."""
        return cls({**{i: i for i in range(classes)}, ignore: IGNORE}, classes)

    def apply(self, mask: np.ndarray, file: Path | str, remedy: Callable[[int], str] | None = None) -> np.ndarray:
        """Return the H,W uint8 train ids of a mask.

        Args:
            mask: H,W integers as read from a file.
            file: its name, for messages.
            remedy: what to do about an unknown value of a mask of class ids; None: correct dataset.yaml.

        Raises:
            InputError: an unknown value, with the number of its pixels and the position of the first.
        """
        if mask.dtype == np.uint8:
            counts = np.bincount(mask.ravel(), minlength=256)
            if not counts[self._table[:256] == _UNKNOWN].any():
                return self._bytes[mask]
        outside = (mask < 0) | (mask >= len(self._table))
        labels = self._table[np.where(outside, 0, mask)]
        ignored = outside & np.isin(mask, [NO_DATA, *(value for value in self.mapping if value < 0)])
        labels[ignored] = IGNORE
        unknown = (outside & ~ignored) | (labels == _UNKNOWN)
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            value = int(mask[y, x])
            others = np.setdiff1d(mask[unknown], value)
            pixels = int((mask == value).sum())
            known = f"a class id (0 to {self.classes - 1}) in" if remedy else f"one of the {self.classes} classes:"
            what = f"value {value} is not {known} {pixels:,} pixel{'s' * (pixels != 1)}, the first at x={x}, y={y}"
            what += f" (and {len(others)} other such value{'s' * (len(others) != 1)})" if len(others) else ""
            raise InputError(
                file, what, remedy(value) if remedy else _remedy(value, self.classes, np.unique(mask), self.mapping)
            )
        return labels.astype(np.uint8)


_UNKNOWN = -1
_CITYSCAPES = 19  # classes, with label ids up to 33


def _remedy(value: int, classes: int, values: np.ndarray, mapping: Mapping[int, int]) -> str:
    if set(values.tolist()) <= {0, 255} and classes == 2:
        return "this is a 0/255 mask: write label_map: {0: 0, 255: 1} in dataset.yaml"
    if {0, 255} <= set(values.tolist()) and classes == 2 and values[-1] == 255 and len(values) > 4:
        return "if these are smoothed edges, write threshold: 128 in dataset.yaml, instead of label_map"
    ids = set(values.tolist()) - {IGNORE}
    if ids <= set(range(1, classes + 1)) and classes in ids:
        what = ", ".join(f"{i + 1}: {i}" for i in range(min(classes, 3))) + (", ..." if classes > 3 else "")
        return f"if the labels begin with 1, write label_map: {{{what}}} in dataset.yaml"
    if classes == _CITYSCAPES and classes <= value <= 33 and max(ids) <= 33:
        return "if these are Cityscapes label ids, let danet init write their label_map, or set `dataset` to cityscapes"
    if value > 1000:
        return "if this is an instance map, use the class map instead (Cityscapes: *_labelIds.png)"
    if all(target in (key, IGNORE) for key, target in mapping.items()):  # as without a label_map
        ignored = ", ".join(str(key) for key in (*(k for k, target in mapping.items() if target == IGNORE), value))
        return f"write ignore: [{ignored}] in dataset.yaml to ignore it, or correct the mask"
    if value == IGNORE:
        return f"add {IGNORE}: {IGNORE} to label_map in dataset.yaml to ignore it"
    return f"add {value}: ID to label_map in dataset.yaml (or {value}: {IGNORE} to ignore it), or correct the mask"
