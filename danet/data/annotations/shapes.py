"""The common form of all annotation formats: images with shapes, and each shape a class with a region of the image.

Coordinates are pixels, x to the right and y down, from the top left corner of the top left pixel. That pixel covers
0 to 1 in x and y, and its center is (0.5, 0.5).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from danet.data.classes import Color
from danet.errors import list_names


@dataclass(frozen=True)
class Polygon:
    """The points inside an odd number of closed rings, so that a ring inside another is a hole.

    Args:
        rings: each at least 3 points (x, y), without the first one repeated.
    """

    rings: tuple[Float64[np.ndarray, "_ 2"], ...]


@dataclass(frozen=True)
class Line:
    """The points near a line through these points (x, y). Its width is not part of any format."""

    points: Float64[np.ndarray, "N 2"]


@dataclass(frozen=True)
class Runs:
    """A box of pixels, run-length encoded: `counts[0]` pixels outside the region, `counts[1]` inside, and so on.

    Args:
        counts: their sum is `height` * `width`.
        height: of the box.
        width: of the box.
        by_columns: whether the pixels are counted down the columns; otherwise along the rows.
        left: column of the image where the box begins; may be negative.
        top: row of the image where the box begins; may be negative.
    """

    counts: Int64[np.ndarray, " N"]
    height: int
    width: int
    by_columns: bool
    left: int = 0
    top: int = 0


@dataclass(frozen=True)
class Bitmap:
    """A box of pixels; True is inside the region.

    Args:
        pixels: of the box.
        left: column of the image where the box begins; may be negative.
        top: row of the image where the box begins; may be negative.
    """

    pixels: Bool[np.ndarray, "H W"]
    left: int = 0
    top: int = 0


Region = Polygon | Line | Runs | Bitmap


@dataclass(frozen=True)
class Shape:
    """An annotated object or area.

    Args:
        name: its class; None: pixels to ignore.
        regions: their union is the area.
        place: where it is written, for messages: "annotations.json: annotations[3]".
        score: how certain a prediction is, in [0, 1].
    """

    name: str | None
    regions: tuple[Region, ...]
    place: str
    score: float | None = None


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and its shapes.

    Args:
        name: of the image, as the export writes it.
        place: where it is written, for messages.
        file: the image, or None if it was not found.
        shapes: in the order of the export; can be iterated several times.
        size: height and width, if the export contains them.
        split: "train", "val", "test", or None.
        embedded: returns the image file's bytes, if the export itself contains them.
        relative: whether coordinates are fractions of width and height.
    """

    name: str
    place: str
    file: Path | None
    shapes: Iterable[Shape]
    size: tuple[int, int] | None = None
    split: str | None = None
    embedded: Callable[[], bytes] | None = None
    relative: bool = False


@dataclass(frozen=True)
class Export:
    """What a reader found.

    Args:
        images: in the order of the export.
        classes: name -> color, or None if the export has no colors; in the order of the export.
        left_out: what cannot be drawn, such as "points" -> the places of these records.
        notes: what else the user should know, one line each.
    """

    images: Sequence[AnnotatedImage]
    classes: Mapping[str, Color | None]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def note_shared_names(names: Mapping[Any, str]) -> tuple[str, ...]:
    """Return a note if several ids have one name, so that they become one class; else nothing."""
    shared = [name for name, number in Counter(names.values()).items() if number > 1]
    return (f"ids with the same name are one class: {list_names(shared, 5)}",) if shared else ()


def rectangle(x: float, y: float, width: float, height: float, degrees: float = 0, centered: bool = False) -> Polygon:
    """Return a rectangle, rotated clockwise.

    Args:
        x: of the left side, before the rotation.
        y: of the upper side, before the rotation.
        width: in pixels; may be negative.
        height: in pixels; may be negative.
        degrees: of the rotation.
        centered: rotate around the center; otherwise around the corner (x, y).
    """
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    middle = np.array((width, height)) / 2 if centered else np.zeros(2)
    return Polygon((np.add(_rotated(corners - middle, degrees) + middle, (x, y)),))


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> Polygon:
    """Return an ellipse around (x, y), rotated clockwise, as a polygon that is at most 0.01 pixels away from it."""
    radius = max(abs(radius_x), abs(radius_y), 1)
    corners = math.ceil(math.pi / math.acos(1 - 0.01 / radius))
    angles = np.arange(corners) * (2 * math.pi / corners)
    ring = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], axis=1)
    return Polygon((np.add(_rotated(ring, degrees), (x, y)),))


def _rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate points (x, y) around (0, 0), clockwise as y points down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ np.array([(cos, sin), (-sin, cos)])
