"""What the numbers in a mask mean: the classes' names and colors, and the map from a file's values to train ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danet.errors import InputError

IGNORE = 255
"""The train id that no loss and no metric sees."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, in the order of their train ids.

    Args:
        names: one a class; train id = place in the list.
        palette: one RGB color a class, each channel in [0, 255].

    Raises:
        InputError: no class, too many, two of one name, or a palette of another length.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]

    def __post_init__(self):
        if not 1 <= len(self.names) <= IGNORE:
            raise InputError(
                "classes", f"{len(self.names)} names", f"give 1 to {IGNORE} of them ({IGNORE} means ignore)"
            )
        if len(set(self.names)) < len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError(
                "classes", f"{', '.join(twice)} stands there more than once", "give each class its own name"
            )
        if len(self.palette) != len(self.names):
            raise InputError(
                "palette", f"{len(self.palette)} colors for {len(self.names)} classes", "give one [r, g, b] a class"
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def named(cls, names: tuple[str, ...]) -> "Classes":
        """These names in distinct colors, for datasets that bring none."""
        return cls(names, distinct_palette(len(names)))


def distinct_palette(n: int) -> tuple[Color, ...]:
    """The first n colors of the PASCAL VOC palette that are not black: far apart for small n, and always the same."""
    colors = []
    for i in range(1, n + 1):
        channels = [0, 0, 0]
        for bit in range(8):  # the bits of i, dealt to R, G, B, most significant first
            for channel in range(3):
                channels[channel] |= ((i >> (3 * bit + channel)) & 1) << (7 - bit)
        colors.append(tuple(channels))
    return tuple(colors)


class LabelMap:
    """File values -> train ids, as a table.

    Args:
        mapping: file value -> train id or 255.
        classes: how many train ids there are.

    Raises:
        InputError: a target that is neither a class nor 255.
    """

    def __init__(self, mapping: Mapping[int, int], classes: int):
        for value, target in mapping.items():
            if not (0 <= target < classes or target == IGNORE):
                raise InputError(
                    "label_map", f"{value}: {target} is no class", f"map to 0..{classes - 1}, or to {IGNORE} to ignore"
                )
            if not 0 <= value < 1 << 16:
                raise InputError("label_map", f"{value} cannot be a mask's value", "use values from 0 to 65535")
        self.mapping = dict(mapping)
        self.classes = classes
        self._table = np.full(1 << 16, _UNKNOWN, np.int16)
        for value, target in self.mapping.items():
            self._table[value] = target
        self._bytes = self._table[:256].astype(np.uint8)

    @classmethod
    def identity(cls, classes: int, ignore: int = IGNORE) -> "LabelMap":
        """Every class to itself, and one file value that means ignore."""
        return cls({**{i: i for i in range(classes)}, ignore: IGNORE}, classes)

    def apply(self, mask: np.ndarray, file: Path | str) -> np.ndarray:
        """H,W integers as read from a file -> H,W uint8 train ids.

        Raises:
            InputError: values that mean nothing: the first such value, how many pixels have it, and where the first one
                is.
        """
        if mask.dtype == np.uint8:
            found = np.bincount(mask.ravel(), minlength=256)
            if not found[self._table[:256] == _UNKNOWN].any():
                return self._bytes[mask]
        outside = (mask < 0) | (mask >= len(self._table))
        labels = self._table[np.where(outside, 0, mask)]
        unknown = outside | (labels == _UNKNOWN)
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            value = int(mask[y, x])
            others = np.setdiff1d(mask[unknown], value)
            pixels = int((mask == value).sum())
            raise InputError(
                file,
                f"value {value} is none of the {self.classes} classes: {pixels} pixels, the first at x={x}, y={y}"
                + (f" (and {len(others)} other such values)" if len(others) else ""),
                _remedy(value, self.classes, np.unique(mask)),
            )
        return labels.astype(np.uint8)


_UNKNOWN = -1
_CITYSCAPES = 19  # classes, whose label ids go to 33


def _remedy(value: int, classes: int, values: np.ndarray) -> str:
    if set(values.tolist()) <= {0, 255} and classes == 2:
        return "a 0/255 mask: write label_map: {0: 0, 255: 1} in dataset.yaml"
    ids = set(values.tolist()) - {IGNORE}
    if ids <= set(range(1, classes + 1)) and classes in ids:
        what = ", ".join(f"{i + 1}: {i}" for i in range(min(classes, 3))) + (", ..." if classes > 3 else "")
        return f"do the labels begin with 1? then write label_map: {{{what}}} in dataset.yaml"
    if classes == _CITYSCAPES and classes <= value <= 33 and max(ids) <= 33:
        return "Cityscapes' label ids? danet init writes their label_map; --dataset cityscapes reads them as they are"
    if value > 1000:
        return "an instance map? give the class map instead (Cityscapes: *_labelIds.png)"
    if value == IGNORE:
        return f"write {IGNORE}: {IGNORE} in label_map to ignore it"
    return f"map it with label_map: {{{value}: CLASS}} (or {value}: {IGNORE} to ignore it), or mend the mask"
