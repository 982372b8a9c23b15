"""Follow a protocol over an image: cut windows, run the network on them, and average the scores in bounded memory.

At most one K x H x W map is held, at the image's own size, however large the scales: each window's scores are added
to it directly, through the interpolation's taps. A single whole view needs no map at all.
"""

import math
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from danet.arrays import Array, namespace, softmax, without_gradients
from danet.errors import InputError
from danet.predict.protocols import Protocol, Windows, check
from danet.predict.resampling import Axis, Taps, linear, resample, share, tiles

Logits = Callable[[Array], Array]
"""Normalized images B,N,H,W -> logits B,K,h,w: a network or an exported model. Logits of another size than the images
are interpolated to it. Tensors for the former, NumPy arrays for the latter.
"""

PIXELS_AT_ONCE = 1 << 20
"""Maximum number of pixels per forward pass on the CPU: one window of 1024 x 1024. More are hardly faster there, and
each keeps its features in memory.
"""

Part = tuple[slice, slice, Float[Array, "K n m"]]
"""Rows, columns and the scores there."""


@without_gradients
def averaged(
    logits: Logits,
    image: Float[Array, "1 N h w"],
    black: Float[Array, "1 N 1 1"],
    size: tuple[int, int],
    protocol: Protocol,
    batch: int | None,
) -> Iterator[Part]:
    """Yield the averaged scores of an image, a tile at a time, in the logits' precision or float32.

    A tile consists of whole rows, unless a row is so long that it is divided. The scores are logits, probabilities, or
    sums of exponentials, depending on `protocol.average`.

    Args:
        logits: the network.
        image: normalized.
        black: the normalized black pixel, -mean / std, with which windows are padded.
        size: height and width of the scores.
        protocol: scales, windows and averaging.
        batch: maximum number of images per forward pass; it does not affect the result. None: 4, on the CPU at most as
            many as have `PIXELS_AT_ONCE` pixels.

    Raises:
        InputError: an invalid protocol; exponentials that overflow.
    """
    check(protocol)
    if batch is not None and batch < 1:
        raise InputError("batch", f"must be at least 1, got {batch}", "use the number of images per forward pass")
    views = len(protocol.scales) * len(_passes(protocol))
    parts = _parts(logits, image, black, size, protocol, batch)
    if protocol.crop is None and views == 1:  # the parts are the tiles
        yield from parts
        return
    total = None  # K,H,W
    for rows, columns, part in parts:
        total = _zeros((part.shape[0], *size), part) if total is None else total
        total[:, rows, columns] += part
    assert total is not None
    for rows, columns in tiles(*size, total.shape[0]):
        tile = total[:, rows, columns]
        yield rows, columns, tile if protocol.average == "exp" else tile / views


def upsampled(
    logits: Float[Array, "K h w"], input_size: tuple[int, int], size: tuple[int, int], align_corners: bool
) -> Iterator[Part]:
    """Yield one image's logits at the image's size, a tile at a time.

    They are interpolated twice, as by `averaged` for one whole view: to the input's size, then to the image's.

    Args:
        logits: at the feature grid's or the input's size.
        input_size: height and width of the network's input.
        size: height and width of the image.
        align_corners: of both interpolations.
    """
    rows, columns = (Axis(own, side, align_corners) for own, side in zip(size, input_size, strict=True))
    protocol = Protocol(average="logits", align_corners=align_corners)
    return _contributions([(_at_least_float32(logits), False)], input_size, rows, columns, protocol)


def scaled_size(size: tuple[int, int], scale: float, long_side: int | None = None) -> tuple[int, int]:
    """Return height and width at a scale, rounded as in the released code.

    The longer side is ceil(base * scale), where the base is `long_side`, or the image's own longer side if it is None.
    The other side is in proportion, with halves rounded up.
    """
    base = max(size) if long_side is None else long_side
    long = math.ceil(base * scale)
    other = max(1, int(min(size) * long / max(size) + 0.5))
    return (long, other) if size[0] > size[1] else (other, long)


def spans(side: int, crop: int | None, stride: float, windows: Windows) -> list[range]:
    """Return the windows along an axis of `side` pixels: the pixels that each covers, in order.

    "released" windows shorter than the crop are to be padded to it. "shifted" windows all have min(crop, side) pixels.
    """
    if crop is None:
        return [range(side)]
    step = max(1, int(crop * stride + 1e-6))  # so that 513 / 769 of 769 is 513
    count = math.ceil(max(0, side - crop) / step) + 1
    starts = [i * step for i in range(count)]
    if windows == "shifted":
        starts = [min(start, max(0, side - crop)) for start in starts]
    return [range(start, min(start + crop, side)) for start in starts]


def visits(side: int, windows: list[range]) -> list[int]:
    """Return how many of the windows cover each of the `side` pixels."""
    return [sum(pixel in window for window in windows) for pixel in range(side)]


class _Window(NamedTuple):
    """A window's normalized pixels, and the rows and columns of the result to which it contributes."""

    pixels: Array  # 1,N,h,w
    rows: Axis | Taps
    columns: Axis | Taps


def _parts(
    logits: Logits, image: Array, black: Array, size: tuple[int, int], protocol: Protocol, batch: int | None
) -> Iterator[Part]:
    """Yield all contributions to the result."""
    for scale in protocol.scales:
        windows = _windows(_scaled(image, scale, protocol), size, protocol)
        jobs = [(window, flips) for window in windows for flips in _passes(protocol)]
        limit = _batch_limit(windows[0].pixels) if batch is None else batch
        step = max(1, limit // len(jobs[0][1]))
        for start in range(0, len(jobs), step):
            # a generator of its own, so that these outputs are freed before the next forward pass
            yield from _run(logits, jobs[start : start + step], black, protocol, limit)


def _batch_limit(window: Array) -> int:
    if str(window.device) != "cpu":
        return 4
    return min(4, max(1, PIXELS_AT_ONCE // (window.shape[2] * window.shape[3])))


def _passes(protocol: Protocol) -> list[tuple[bool, ...]]:
    """Return what is averaged over a window: tuples of flipped or not, whose logits are summed ("exp") first."""
    if not protocol.flip:
        return [(False,)]
    return [(False, True)] if protocol.average == "exp" else [(False,), (True,)]


def _windows(scaled: Array, size: tuple[int, int], protocol: Protocol) -> list[_Window]:
    axes = []
    for own, side in zip(size, scaled.shape[2:], strict=True):
        covers = spans(side, protocol.crop, protocol.stride, protocol.windows)
        if len(covers) == 1:
            axes.append([(slice(0, side), Axis(own, side, protocol.align_corners))])
            continue
        taps, counts = linear(own, side, protocol.align_corners), visits(side, covers)
        axes.append([(slice(span.start, span.stop), share(taps, span, counts)) for span in covers])
    return [_Window(scaled[..., y, x], rows, columns) for y, rows in axes[0] for x, columns in axes[1]]


def _run(
    logits: Logits, jobs: list[tuple[_Window, tuple[bool, ...]]], black: Array, protocol: Protocol, batch: int
) -> Iterator[Part]:
    """Run the network on windows of equal size, and yield their contributions."""
    images = []
    for window, flips in jobs:
        image = _padded(window.pixels, black, protocol)
        images += [_flipped(image) if flipped else image for flipped in flips]
    inputs = _joined(images)  # b,N,h,w
    parts = (inputs[i : i + batch] for i in range(0, len(inputs), batch))
    outputs = iter([output for part in parts for output in _at_least_float32(logits(part))])
    for window, flips in jobs:
        answers = [(next(outputs), flipped) for flipped in flips]
        yield from _contributions(answers, (inputs.shape[2], inputs.shape[3]), window.rows, window.columns, protocol)


def _contributions(
    outputs: list[tuple[Array, bool]],
    input_size: tuple[int, int],
    rows: Axis | Taps,
    columns: Axis | Taps,
    protocol: Protocol,
) -> Iterator[Part]:
    """Turn a window's logits, each K,h,w and flipped or not, into its contributions, a tile at a time.

    Args:
        outputs: of the network.
        input_size: height and width of the network's input.
        rows: from the input's rows to those of the result.
        columns: from the input's columns to those of the result.
        protocol: how they are averaged.
    """
    classes, height, width = outputs[0][0].shape
    to_rows = Axis(input_size[0], height, protocol.align_corners)
    to_columns = Axis(input_size[1], width, protocol.align_corners)
    count, across = (axis.outputs.stop - axis.outputs.start for axis in (rows, columns))
    read = math.prod(math.ceil(side / max(1, own)) for side, own in zip(input_size, (count, across), strict=True))
    for down_tile, across_tile in tiles(count, across, classes * read):
        down, part = rows.cut(down_tile), columns.cut(across_tile)
        top, bottom = int(down.sources.min()), int(down.sources.max()) + 1
        left, right = int(part.sources.min()), int(part.sources.max()) + 1
        own, mirrored = slice(left, right), slice(input_size[1] - right, input_size[1] - left)
        near_rows = to_rows.cut(slice(top, bottom))
        strips = []
        for output, flipped in outputs:
            strip = resample(output, near_rows, to_columns.cut(mirrored if flipped else own))  # K,n,m
            strips.append(_flipped(strip) if flipped else strip)
        scores = _scores(reduce(add, strips), protocol)
        down, part = down._replace(sources=down.sources - top), part._replace(sources=part.sources - left)
        yield down.outputs, part.outputs, resample(scores, down, part)


def _scores(logits: Array, protocol: Protocol) -> Array:
    if protocol.average == "softmax":
        return softmax(logits)
    if protocol.average == "exp":
        limit = math.log(namespace(logits).finfo(logits.dtype).max / len(protocol.scales))
        if (largest := logits.max().item()) > limit:
            what = f"a sum of logits is {largest:.1f}, but exp overflows {logits.dtype} above {limit:.1f}"
            raise InputError("protocol", what, 'use one that averages by "softmax", such as paper-multi')
        return namespace(logits).exp(logits)
    return logits


def _scaled(image: Array, scale: float, protocol: Protocol) -> Array:
    size = image.shape[2], image.shape[3]
    height, width = scaled_size(size, scale, protocol.base(*size))
    if (height, width) == size:
        return image
    rows = linear(height, image.shape[2], protocol.align_corners)
    return resample(image, rows, linear(width, image.shape[3], protocol.align_corners))


def _padded(pixels: Array, black: Array, protocol: Protocol) -> Array:
    if protocol.crop is None or protocol.windows == "shifted":
        return pixels
    image = namespace(black).tile(black, (1, 1, protocol.crop, protocol.crop))
    image[..., : pixels.shape[2], : pixels.shape[3]] = pixels
    return image


def _joined(images: list[Array]) -> Array:
    """Return the images as one batch, in the memory format in which torch's convolutions are faster."""
    library = namespace(images[0])
    batch = library.concat(images)
    return batch if library is np else batch.contiguous(memory_format=library.channels_last)


def _flipped(x: Array) -> Array:
    return namespace(x).flip(x, (-1,))


def _zeros(shape: tuple[int, ...], like: Array) -> Array:
    return namespace(like).zeros(shape, dtype=like.dtype, device=like.device)


def _at_least_float32(x: Array) -> Array:
    library = namespace(x)
    dtype = library.promote_types(x.dtype, library.float32)
    return x.astype(dtype, copy=False) if isinstance(x, np.ndarray) else x.to(dtype)
