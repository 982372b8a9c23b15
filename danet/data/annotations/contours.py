"""Outlines of the connected regions of a label map, as polygons, and their simplification.

An outline runs along the edges of pixels, so that drawing it gives back exactly its region, with all holes filled.
Regions drawn from the largest to the smallest give back the label map: what is inside a hole is drawn later.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64, UInt8

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # x, y


def trace_regions(labels: UInt8[np.ndarray, "H W"]) -> list[tuple[int, Float64[np.ndarray, "_ 2"]]]:
    """Return the label and the outline of each region of neighbors with the same label, the largest outline first.

    Diagonal pixels are no neighbors. Points are (x, y), without the first one repeated.
    """
    found = [(int(label), ring) for label in np.unique(labels) for ring in _trace(labels == label)]
    return sorted(found, key=lambda pair: -ring_area(pair[1]))


def ring_area(ring: Float64[np.ndarray, "N 2"]) -> float:
    """Return the area of a polygon, in pixels; negative if it runs counterclockwise."""
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _trace(inside: Bool[np.ndarray, "H W"]) -> Iterator[np.ndarray]:
    """Yield the outlines of a mask's regions, clockwise.

    Each edge between a pixel inside and one outside is an arrow with the inside at its right. Where two arrows begin,
    the one to the right follows, which belongs to the same pixel.
    """
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    box = np.pad(inside[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    center, width = box[1:-1, 1:-1], box.shape[1] - 1
    outer = (box[:-2, 1:-1], box[1:-1, 2:], box[2:, 1:-1], box[1:-1, :-2])  # above, right, below, left of each pixel
    offsets = ((0, 0), (0, 1), (1, 1), (1, 0))  # row and column of the corner where the arrow along each side begins
    starts, directions = [], []
    for direction, (neighbors, (y, x)) in enumerate(zip(outer, offsets, strict=True)):
        at = np.add(np.argwhere(center & ~neighbors), (y, x))
        starts.append(at[:, 0] * width + at[:, 1])
        directions.append(np.full(len(at), direction))
    start, direction = np.concatenate(starts), np.concatenate(directions)
    order = np.argsort(4 * start + direction)
    start, direction = start[order], direction[order]
    exists = np.zeros(4 * (box.shape[0] - 1) * width, bool)
    exists[4 * start + direction] = True
    end = start + (_STEPS[:, 0] + width * _STEPS[:, 1])[direction]
    turns = [(direction + turn) % 4 for turn in (1, 0, 3)]
    following = np.where(exists[4 * end + turns[0]], turns[0], np.where(exists[4 * end + turns[1]], *turns[1:]))
    next_arrow = np.searchsorted(4 * start + direction, 4 * end + following).tolist()
    points = np.stack([start % width + left, start // width + top], axis=1).astype(np.float64)
    arrows, begins = _loops(next_arrow)
    ends = np.append(begins[1:], len(arrows))
    before, after = np.roll(arrows, 1), np.roll(arrows, -1)
    before[begins], after[ends - 1] = arrows[ends - 1], arrows[begins]
    corner = direction[arrows] != direction[before]
    x, y = points.T
    areas = np.add.reduceat(x[arrows] * y[after] - y[arrows] * x[after], begins)
    for begin, stop in zip(
        begins[areas > 0], ends[areas > 0], strict=True
    ):  # the outline of a hole has an area below 0
        yield points[arrows[begin:stop][corner[begin:stop]]]


def _loops(next_arrow: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cycles of a permutation one after the other, and where each begins."""
    seen, arrows, begins = bytearray(len(next_arrow)), [], []
    for arrow in range(len(next_arrow)):
        if not seen[arrow]:
            begins.append(len(arrows))
        while not seen[arrow]:
            seen[arrow] = 1
            arrows.append(arrow)
            arrow = next_arrow[arrow]
    return np.array(arrows), np.array(begins)


def simplify(ring: Float64[np.ndarray, "N 2"], tolerance: float) -> Float64[np.ndarray, "M 2"]:
    """Remove points of a polygon such that the rest is at most `tolerance` away from them (Douglas and Peucker, 1973).

    Returns:
        The points that are left; two for a polygon that is nowhere wider than about `tolerance`.
    """
    if tolerance <= 0:
        return ring
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed, keep = np.concatenate([ring, ring[:1]]), np.zeros(len(ring) + 1, bool)
    keep[[0, far]] = True
    chains = [(0, far), (far, len(ring))]
    while chains:
        first, last = chains.pop()
        if last - first < 2:
            continue
        step = closed[last] - closed[first]
        offsets = closed[first + 1 : last] - closed[first]
        along = np.clip(offsets @ step / max(float(step @ step), 1e-12), 0, 1)
        distances = ((offsets - along[:, None] * step) ** 2).sum(axis=1)
        farthest = int(np.argmax(distances))
        if distances[farthest] > tolerance**2:
            middle = first + 1 + farthest
            keep[middle] = True
            chains += [(first, middle), (middle, last)]
    return ring[keep[:-1]]
