"""A protocol followed over an image: its windows cut, shown to the network, and averaged in bounded memory.

At most one K x H x W map is held, at the image's own size, however large the scales: each window's scores are added
to it directly, through the interpolation's taps. A single whole view needs no map at all.
"""

import math
from collections.abc import Callable, Iterator
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from danet.errors import InputError
from danet.predict.protocols import Protocol, check
from danet.predict.resampling import Taps, bands, linear, resample, share
from danet.predict.window_layout import scaled_size, spans, visits

Logits = Callable[[Tensor], Tensor]
"""Normalized images B,3,H,W -> logits B,K,H',W': a network, an exported model. Logits of another size than their images
are brought to it.
"""


PIXELS_AT_ONCE = 1 << 20
"""Of images through the network at once on the processor: one window of 1024 x 1024. More are hardly faster there, and
each keeps its features in memory beside the sum of the scores.
"""


@torch.inference_mode()
def averaged(
    logits: Logits,
    image: Float[Tensor, "1 N h w"],
    black: Float[Tensor, "1 N 1 1"],
    size: tuple[int, int],
    protocol: Protocol,
    batch: int | None,
) -> Iterator[tuple[slice, Float[Tensor, "K n W"]]]:
    """The averaged scores of a normalized image at `size` H, W, a band of rows at a time, in the logits' precision,
    float32 at least: logits, probabilities, or sums of exponentials, as `protocol.average` says.

    Args:
        black: what windows are padded with: the normalized black pixel, -mean / std.
        batch: images through the network at once, at most; it changes no result. None: 4, on the processor no more than
            make `PIXELS_AT_ONCE`.

    Raises:
        InputError: a protocol that cannot be followed; exponentials beyond the number format.
    """
    check(protocol)
    if batch is not None and batch < 1:
        raise InputError("batch", f"{batch} is less than 1", "give the number of images at once")
    views = len(protocol.scales) * len(_passes(protocol))
    parts = _parts(logits, image, black, size, protocol, batch)
    if protocol.crop is None and views == 1:  # the parts are the bands
        for rows, _, part in parts:
            yield rows, part
        return
    total = None  # K,H,W
    for rows, columns, part in parts:
        total = part.new_zeros(part.shape[0], *size) if total is None else total
        total[:, rows, columns] += part
    assert total is not None
    for rows in bands(size[0], total.shape[0] * size[1]):
        yield rows, total[:, rows] if protocol.average == "exp" else total[:, rows] / views


class _Window(NamedTuple):
    """A window's normalized pixels, and what it adds to the rows and columns of the image's own size."""

    pixels: Tensor  # 1,3,h,w
    rows: Taps
    columns: Taps


def _parts(
    logits: Logits, image: Tensor, black: Tensor, size: tuple[int, int], protocol: Protocol, batch: int | None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """All that is to be added up: rows, columns, scores K,n,m."""
    for scale in protocol.scales:
        windows = _windows(_scaled(image, scale, protocol), size, protocol)
        jobs = [(window, mirrored) for window in windows for mirrored in _passes(protocol)]
        at_once = _at_once(windows[0].pixels) if batch is None else batch
        step = max(1, at_once // len(jobs[0][1]))
        for start in range(0, len(jobs), step):
            # a generator of its own, so that these outputs are gone when the network makes the next
            yield from _run(logits, jobs[start : start + step], black, protocol, at_once)


def _at_once(window: Tensor) -> int:
    if window.is_cuda:
        return 4
    return min(4, max(1, PIXELS_AT_ONCE // (window.shape[2] * window.shape[3])))


def _passes(protocol: Protocol) -> list[tuple[bool, ...]]:
    """What is averaged of a window: tuples of mirrored or not. exp takes the sum of both."""
    if not protocol.flip:
        return [(False,)]
    return [(False, True)] if protocol.average == "exp" else [(False,), (True,)]


def _windows(scaled: Tensor, size: tuple[int, int], protocol: Protocol) -> list[_Window]:
    axes = []
    for own, side in zip(size, scaled.shape[2:], strict=True):
        covers = spans(side, protocol.crop, protocol.stride, protocol.windows)
        taps, seen = linear(own, side, protocol.align_corners), visits(side, covers)
        axes.append([(slice(span.start, span.stop), share(taps, span, seen)) for span in covers])
    return [_Window(scaled[..., y, x], rows, columns) for y, rows in axes[0] for x, columns in axes[1]]


def _run(
    logits: Logits, jobs: list[tuple[_Window, tuple[bool, ...]]], black: Tensor, protocol: Protocol, batch: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Windows of equal size through the network, and what they add."""
    images = []
    for window, passes in jobs:
        image = _padded(window.pixels, black, protocol)
        images += [image.flip(-1) if mirrored else image for mirrored in passes]
    shown = torch.cat(images).contiguous(memory_format=torch.channels_last)  # b,3,h,w
    outputs = iter([output for part in shown.split(batch) for output in _at_least_float32(logits(part))])
    for window, passes in jobs:
        seen = [(next(outputs), mirrored) for mirrored in passes]
        yield from _added(seen, (shown.shape[2], shown.shape[3]), window, protocol)


def _added(
    seen: list[tuple[Tensor, bool]], size: tuple[int, int], window: _Window, protocol: Protocol
) -> Iterator[tuple[slice, slice, Tensor]]:
    """A window's logits, each K,h,w and mirrored or not -> what it adds, a band of rows at a time. `size` is the height
    and width that the network was shown.
    """
    classes, height, width = seen[0][0].shape
    to_rows = linear(size[0], height, protocol.align_corners)
    to_columns = linear(size[1], width, protocol.align_corners)
    outputs = window.rows.sources.shape[1]
    read = math.ceil(size[0] / max(1, outputs)) * size[1]  # pixels of the window for a row of outputs
    for band in bands(outputs, classes * max(read, window.columns.sources.shape[1])):
        rows = window.rows.cut(band)
        first, last = int(rows.sources.min()), int(rows.sources.max())
        strips = [(resample(output, to_rows.cut(slice(first, last + 1)), to_columns), flip) for output, flip in seen]
        strip = reduce(torch.add, [strip.flip(-1) if mirrored else strip for strip, mirrored in strips])  # K,n,w
        rows = rows._replace(sources=rows.sources - first)
        yield rows.outputs, window.columns.outputs, resample(_scores(strip, protocol), rows, window.columns)


def _scores(logits: Tensor, protocol: Protocol) -> Tensor:
    if protocol.average == "softmax":
        return torch.softmax(logits, dim=0)
    if protocol.average == "exp":
        limit = math.log(torch.finfo(logits.dtype).max / len(protocol.scales))
        if (largest := logits.max().item()) > limit:
            what = f"a sum of logits is {largest:.1f}, and {logits.dtype} holds exp up to {limit:.1f}"
            raise InputError("average exp", what, "average probabilities instead: --protocol paper-multi, or softmax")
        return logits.exp()
    return logits


def _scaled(image: Tensor, scale: float, protocol: Protocol) -> Tensor:
    size = image.shape[2], image.shape[3]
    height, width = scaled_size(size, scale, protocol.base(*size))
    rows = linear(height, image.shape[2], protocol.align_corners)
    return resample(image, rows, linear(width, image.shape[3], protocol.align_corners))


def _padded(pixels: Tensor, black: Tensor, protocol: Protocol) -> Tensor:
    if protocol.crop is None or protocol.windows == "shifted":
        return pixels
    image = black.repeat(1, 1, protocol.crop, protocol.crop)
    image[..., : pixels.shape[2], : pixels.shape[3]] = pixels
    return image


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
