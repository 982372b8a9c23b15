"""Bilinear interpolation of scores, a tile or a window at a time, to bound the memory for full-size maps.

Linear interpolation reads two pixels along each axis. Written as taps, it can be divided among windows: each window
contributes to the outputs that read it, divided by the number of windows that cover the same pixel.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from danet.arrays import Array, add_product, like, take

TILE_ELEMENTS = 1 << 21
"""Maximum number of scores held at once while they are interpolated: 8 MiB in float32. Larger tiles are slower, because
each temporary tensor is then mapped anew.
"""


class Taps(NamedTuple):
    """The taps of linear interpolation along an axis.

    Output i = outputs.start + j is weights[0, j] x[sources[0, j]] + weights[1, j] x[sources[1, j]].

    Args:
        outputs: n consecutive outputs.
        sources: of each output, two pixels.
        weights: of these pixels.
    """

    outputs: slice
    sources: Int64[np.ndarray, "2 n"]
    weights: Float64[np.ndarray, "2 n"]

    def cut(self, part: slice) -> "Taps":
        """Return the taps of some of these outputs, counted from the first."""
        outputs = slice(self.outputs.start + part.start, self.outputs.start + part.stop)
        return Taps(outputs, self.sources[:, part], self.weights[:, part])


class Axis(NamedTuple):
    """Linear interpolation of a whole axis. Its taps are computed when they are needed: an axis may be very long.

    Args:
        size: number of outputs.
        source: number of pixels that they are interpolated from.
        align_corners: as in `torch.nn.functional.interpolate`.
    """

    size: int
    source: int
    align_corners: bool

    @property
    def outputs(self) -> slice:
        """All outputs."""
        return slice(0, self.size)

    def cut(self, part: slice) -> Taps:
        """Return the taps of some of the outputs."""
        at = np.arange(part.start, part.stop, dtype=np.float64)
        if self.align_corners:
            position = at * (self.source - 1) / max(1, self.size - 1)
        else:
            position = ((at + 0.5) * self.source / self.size - 0.5).clip(min=0)
        first = np.floor(position).astype(np.int64).clip(max=self.source - 1)
        sources = np.stack([first, (first + 1).clip(max=self.source - 1)])
        return Taps(part, sources, np.stack([1 - (position - first), position - first]))


def linear(size: int, source: int, align_corners: bool) -> Taps:
    """Return the taps that bring an axis of `source` pixels to `size`, as `torch.nn.functional.interpolate` does."""
    return Axis(size, source, align_corners).cut(slice(0, size))


def share(taps: Taps, window: range, visits: Sequence[int]) -> Taps:
    """Return a window's contribution to the outputs; the contributions of all windows add up to `taps`.

    Args:
        taps: of the whole axis.
        window: the pixels that it covers; the sources of the result count from its first pixel.
        visits: number of windows that cover each source pixel.
    """
    inside = (taps.sources >= window.start) & (taps.sources < window.stop)
    weights = np.where(inside, taps.weights / np.array(visits)[taps.sources], 0)
    reading = np.flatnonzero((weights > 0).any(0)).tolist()
    part = slice(reading[0], reading[-1] + 1) if reading else slice(0, 0)
    sources = (taps.sources - window.start).clip(0, len(window) - 1)
    return Taps(taps.outputs, sources, weights).cut(part)


def resample(x: Float[Array, "*B h w"], rows: Taps, columns: Taps) -> Float[Array, "*B n m"]:
    """Interpolate along both axes. Return a view of `x` if the taps only select neighboring pixels."""
    return _along(_along(x, rows, -2), columns, -1)


def tiles(rows: int, columns: int, elements: int, limit: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Divide a map into tiles: as many whole rows as fit, or parts of a row that is too long.

    Args:
        rows: of the map.
        columns: of the map.
        elements: values held for each pixel.
        limit: maximum number of values held for a tile, unless it is a single pixel; None: TILE_ELEMENTS.
    """
    pixels = max(1, (TILE_ELEMENTS if limit is None else limit) // elements)
    down, across = max(1, pixels // max(1, columns)), min(columns, pixels)
    for top in range(0, rows, down):
        for left in range(0, columns, max(1, across)):
            yield slice(top, min(top + down, rows)), slice(left, min(left + across, columns))


def _along(x: Array, taps: Taps, axis: int) -> Array:
    (first, second), weights = taps.sources, taps.weights
    one_each = not weights[1].any()
    if one_each and (weights[0] == 1).all() and (np.diff(first) == 1).all():
        start = int(first[0]) if len(first) else 0
        part = slice(start, start + len(first))
        return x[..., part, :] if axis == -2 else x[..., part]
    near, far = (like(own.reshape(-1, *(1,) * (-1 - axis)), x) for own in weights)
    out = take(x, first, axis)
    out *= near
    return out if one_each else add_product(out, take(x, second, axis), far)
