"""Bilinear interpolation of scores, a band of rows or a window at a time, so that no map is held that need not be.

Linear interpolation reads two pixels along each axis. Written out as taps, it can be shared out over windows: each adds
what it knows to the outputs that read it, divided by the number of windows that know it too.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

BAND_ELEMENTS = 1 << 21
"""Scores held at once while they are brought to another size: 8 MiB in float32. Much more is slower: every temporary
is then mapped anew.
"""


class Taps(NamedTuple):
    """Output i = outputs.start + j of an axis is weights[0, j] x[sources[0, j]] + weights[1, j] x[sources[1, j]].

    Args:
        outputs: n consecutive outputs.
        sources: 2,n int64.
        weights: 2,n float64.
    """

    outputs: slice
    sources: Tensor
    weights: Tensor

    def cut(self, part: slice) -> "Taps":
        """Of these outputs, some, counted from the first."""
        outputs = slice(self.outputs.start + part.start, self.outputs.start + part.stop)
        return Taps(outputs, self.sources[:, part], self.weights[:, part])


def linear(size: int, source: int, align_corners: bool) -> Taps:
    """An axis of `source` pixels brought to `size`, as `torch.nn.functional.interpolate` does."""
    at = torch.arange(size, dtype=torch.float64)
    if align_corners:
        position = at * (source - 1) / max(1, size - 1)
    else:
        position = ((at + 0.5) * source / size - 0.5).clamp(min=0)
    first = position.floor().long().clamp(max=source - 1)
    sources = torch.stack([first, (first + 1).clamp(max=source - 1)])
    return Taps(slice(0, size), sources, torch.stack([1 - (position - first), position - first]))


def share(taps: Taps, window: range, visits: Sequence[int]) -> Taps:
    """What a window adds to the outputs that read it: sources count from its first pixel, weights are divided by
    `visits` (of each source pixel). The shares of all windows add up to `taps`.
    """
    inside = (taps.sources >= window.start) & (taps.sources < window.stop)
    weights = torch.where(inside, taps.weights / torch.tensor(visits)[taps.sources], 0)
    reading = (weights > 0).any(0).nonzero().flatten().tolist()
    part = slice(reading[0], reading[-1] + 1) if reading else slice(0, 0)
    sources = (taps.sources - window.start).clamp(0, len(window) - 1)
    return Taps(taps.outputs, sources, weights).cut(part)


def resample(x: Float[Tensor, "*B h w"], rows: Taps, columns: Taps) -> Float[Tensor, "*B n m"]:
    """Both axes through their taps; a view of `x` where they only select neighboring pixels."""
    return _along(_along(x, rows, -2), columns, -1)


def bands(rows: int, elements: int) -> Iterator[slice]:
    """`rows` rows of `elements` scores each, in order, BAND_ELEMENTS or one row at a time."""
    step = max(1, BAND_ELEMENTS // elements)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _along(x: Tensor, taps: Taps, dim: int) -> Tensor:
    (first, second), weights = taps.sources, taps.weights
    one_each = not weights[1].any()
    if one_each and bool((weights[0] == 1).all()) and bool((first.diff() == 1).all()):
        return x.narrow(dim, int(first[0]) if len(first) else 0, len(first))
    near, far = weights.to(x.dtype).to(x.device).view(2, -1, *(1,) * (-1 - dim))
    out = _select(x, first, dim).mul_(near)
    return out if one_each else out.addcmul_(_select(x, second, dim), far)


def _select(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """x[index] along `dim`; the quicker of two ways along each axis."""
    if dim == -1:
        return x.gather(-1, index.to(x.device).expand(*x.shape[:-1], -1))
    first = int(index.min())  # index_select copies all that it is given, where that is not contiguous
    return x.narrow(dim, first, int(index.max()) - first + 1).index_select(dim, (index - first).to(x.device))
