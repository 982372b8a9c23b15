"""Sizes and windows of the views of an image: whole numbers only, one axis at a time. Used by `averaging`."""

import math

from danet.predict.protocols import Windows


def scaled_size(size: tuple[int, int], scale: float, long_side: int | None = None) -> tuple[int, int]:
    """Height and width at a scale, as the released code rounds them: the longer side ceil(base * scale), the base being
    `long_side` or the image's own longer side; the other in proportion, halves up.
    """
    base = max(size) if long_side is None else long_side
    long = math.ceil(base * scale)
    other = max(1, int(min(size) * long / max(size) + 0.5))
    return (long, other) if size[0] > size[1] else (other, long)


def spans(side: int, crop: int | None, stride: float, windows: Windows) -> list[range]:
    """The windows along an axis of `side` pixels, in order: the pixels that each covers.

    A "released" window is to be padded to the crop where it is shorter. "shifted" windows are all min(crop, side) long.
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
    """How many of the windows cover each of the `side` pixels."""
    return [sum(pixel in window for window in windows) for pixel in range(side)]
