"""Draw shapes as label maps.

One rule decides for all shapes: a pixel belongs to a region if its center does. So polygons that share an edge neither
overlap nor leave a gap, and a rectangle from x = 2 to x = 5 covers the columns 2, 3 and 4. The tools' own drawings
differ by up to one pixel along the boundary.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int16

from danet.data.annotations.shapes import Bitmap, Line, Polygon, Region, Runs, Shape, ellipse
from danet.data.classes import IGNORE

UNCOVERED = -1
"""The label of pixels without a shape."""

_MAX_CROSSINGS = 1 << 20  # computed at once, to bound the memory
_ROUNDING = 1e-6  # pixels; of coordinates in percent


@dataclass
class Findings:
    """What the user should know about drawings.

    Args:
        drawn: number of shapes with pixels.
        overlapping: number of pixels that a shape took from a shape of another class.
        clipped: places of shapes that extend beyond the image.
        empty: places of shapes without a pixel.
        without_width: places of lines that were not drawn.
    """

    drawn: int = 0
    overlapping: int = 0
    clipped: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    without_width: list[str] = field(default_factory=list)


class Drawing(NamedTuple):
    """Labels (ids, `IGNORE` or `UNCOVERED`), and what should be known about them."""

    labels: Int16[np.ndarray, "H W"]
    findings: Findings


class Part(NamedTuple):
    """The pixels of a region within an image: a box and its top left corner."""

    pixels: Bool[np.ndarray, "H W"]
    left: int
    top: int


def draw_shapes(
    shapes: Iterable[Shape],
    size: tuple[int, int],
    ids: Mapping[str, int],
    line_width: float | None = None,
    largest_first: bool = False,
) -> Drawing:
    """Draw shapes one over the other.

    Args:
        shapes: to draw.
        size: height and width of the image.
        ids: class -> label.
        line_width: of lines, in pixels; None: lines are not drawn.
        largest_first: draw in the order of the areas; otherwise in the given order.
    """
    labels, findings = np.full(size, UNCOVERED, np.int16), Findings()
    areas = (shape for shape in shapes if _has_area(shape, line_width, findings))
    if largest_first:
        sized = [(int(_pixels_of(shape, size, line_width).pixels.sum()), shape) for shape in areas]
        areas = (shape for _, shape in sorted(sized, key=lambda pair: -pair[0]))
    for shape in areas:
        pixels, left, top = _pixels_of(shape, size, line_width)
        if any(_extends_beyond(region, size) for region in shape.regions):
            findings.clipped.append(shape.place)
        if not pixels.any():
            findings.empty.append(shape.place)
            continue
        findings.drawn += 1
        label = IGNORE if shape.name is None else ids[shape.name]
        box = labels[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        findings.overlapping += int(np.count_nonzero(pixels & (box != UNCOVERED) & (box != label)))
        box[pixels] = label
    return Drawing(labels, findings)


def _has_area(shape: Shape, line_width: float | None, findings: Findings) -> bool:
    if line_width is None and any(isinstance(region, Line) for region in shape.regions):
        findings.without_width.append(shape.place)
        return False
    return True


def _pixels_of(shape: Shape, size: tuple[int, int], line_width: float | None) -> Part:
    """Return the pixels of a shape."""
    return _union([region_pixels(region, size, line_width or 0) for region in shape.regions])


def _union(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    left, top = min((p.left for p in parts), default=0), min((p.top for p in parts), default=0)
    right = max((p.left + p.pixels.shape[1] for p in parts), default=0)
    bottom = max((p.top + p.pixels.shape[0] for p in parts), default=0)
    union = np.zeros((bottom - top, right - left), bool)
    for pixels, x, y in parts:
        union[y - top : y - top + pixels.shape[0], x - left : x - left + pixels.shape[1]] |= pixels
    return Part(union, left, top)


def region_pixels(region: Region, size: tuple[int, int], line_width: float = 0) -> Part:
    """Return the pixels of a region within an image.

    Args:
        region: of the image.
        size: height and width of the image.
        line_width: of lines, in pixels.
    """
    match region:
        case Polygon(rings):
            return _fill(rings, size)
        case Line(points):
            return _stroke(points, size, line_width)
        case Runs():
            return _clip(bitmap_of(region), size)
        case Bitmap():
            return _clip(region, size)


def bitmap_of(runs: Runs) -> Bitmap:
    """Decode runs."""
    inside = np.zeros(len(runs.counts), bool)
    inside[1::2] = True
    pixels = np.repeat(inside, runs.counts)
    box = pixels.reshape(runs.width, runs.height).T if runs.by_columns else pixels.reshape(runs.height, runs.width)
    return Bitmap(box, runs.left, runs.top)


def runs_of(pixels: Bool[np.ndarray, "H W"], by_columns: bool, left: int = 0, top: int = 0) -> Runs:
    """Encode a box of pixels as runs."""
    flat = (pixels.T if by_columns else pixels).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate(([0], [0] if flat[0] else [], changes, [len(flat)])).astype(np.int64)
    height, width = pixels.shape
    return Runs(np.diff(bounds), height, width, by_columns, left, top)


def _clip(bitmap: Bitmap, size: tuple[int, int]) -> Part:
    left, top = max(0, bitmap.left), max(0, bitmap.top)
    height, width = max(0, size[0] - top), max(0, size[1] - left)
    pixels = bitmap.pixels[top - bitmap.top :, left - bitmap.left :][:height, :width]
    return Part(pixels, left, top)


def _extends_beyond(region: Region, size: tuple[int, int]) -> bool:
    height, width = size
    match region:
        case Polygon(rings):
            return any(_leave(ring, size) for ring in rings)
        case Line(points):
            return _leave(points, size)
        case Runs(_, rows, columns, _, left, top):
            return left < 0 or top < 0 or left + columns > width or top + rows > height
        case Bitmap(pixels, left, top):
            return left < 0 or top < 0 or left + pixels.shape[1] > width or top + pixels.shape[0] > height


def _leave(points: np.ndarray, size: tuple[int, int]) -> bool:
    return bool((points < -_ROUNDING).any() or (points > np.array((size[1], size[0])) + _ROUNDING).any())


def _box(points: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the pixels around points, within the image."""
    limits = np.array((size[1], size[0]))
    low = np.clip(np.floor(points.min(0)), 0, limits).astype(int)
    high = np.clip(np.ceil(points.max(0)), low, limits).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _fill(rings: Sequence[np.ndarray], size: tuple[int, int]) -> Part:
    """Return the pixels whose centers are inside an odd number of rings.

    Each edge toggles, in each row whose center line it crosses, the pixels to the right of the crossing.
    """
    left, top, right, bottom = _box(np.concatenate(rings), size)
    height, width = bottom - top, right - left + 1
    toggled = np.zeros(height * width, bool)
    for ring in rings:
        starts, ends = ring, np.roll(ring, -1, axis=0)
        y0, y1 = starts[:, 1], ends[:, 1]
        first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), top, bottom).astype(int)
        last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), top, bottom).astype(int)
        counts = last - first
        for chunk in _chunks(counts):
            edges = np.repeat(np.arange(chunk.start, chunk.stop), counts[chunk])
            begins = np.cumsum(counts[chunk]) - counts[chunk]
            rows = first[edges] + np.arange(len(edges)) - np.repeat(begins, counts[chunk])
            slopes = (ends[edges, 0] - starts[edges, 0]) / (y1[edges] - y0[edges])
            x = starts[edges, 0] + (rows + 0.5 - y0[edges]) * slopes
            columns = np.clip(np.ceil(x - 0.5), left, right).astype(int)
            cells, times = np.unique((rows - top) * width + columns - left, return_counts=True)
            toggled[cells] ^= times % 2 == 1
    return Part(np.logical_xor.accumulate(toggled.reshape(height, width), axis=1)[:, :-1], left, top)


def _chunks(counts: np.ndarray) -> Iterable[slice]:
    """Split edges into consecutive groups of about `_MAX_CROSSINGS` crossings each."""
    groups = np.cumsum(counts) // _MAX_CROSSINGS
    bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1), len(counts)]
    return (slice(int(a), int(b)) for a, b in pairwise(bounds))


def _stroke(points: np.ndarray, size: tuple[int, int], width: float) -> Part:
    """Return the pixels whose centers are at most half the width away: a band per step, and a disk per point."""
    regions = [ellipse(x, y, width / 2, width / 2) for x, y in points]
    for start, end in pairwise(points):
        if length := float(np.hypot(*(end - start))):
            aside = (end - start)[::-1] * (-1, 1) * (width / 2 / length)
            regions.append(Polygon((np.stack([start + aside, end + aside, end - aside, start - aside]),)))
    return _union([_fill(region.rings, size) for region in regions])
