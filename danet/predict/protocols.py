"""Test-time protocols: scales, windows, flipping and averaging of the paper, the released code and mmsegmentation."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from danet.errors import InputError, unknown_name

Windows = Literal["released", "shifted"]
Average = Literal["logits", "softmax", "exp"]


@dataclass(frozen=True)
class Protocol:
    """A test-time protocol: each view of an image (a scale, flipped or not) is segmented, and the views are averaged.

    Args:
        crop: side in pixels of the square window that slides over each view; None: no windows, the whole view at once.
        stride: step from one window to the next, as a fraction of the crop in (0, 1], rounded down to pixels.
        windows: "released": at multiples of the stride, padded black at the right and the bottom, as in the released
            code; "shifted": the last ones are shifted back into the image, as in mmsegmentation.
        scales: factors of the base size, each > 0.
        flip: also segment each window flipped horizontally.
        average: "softmax": the mean of the views' probabilities, as in the paper. "logits": the mean of the logits, as
            mmsegmentation averages windows. "exp": exp(logits + flipped logits), averaged over windows and summed over
            scales, as in the released code; views with large logits weigh more.
        long_side: the base size: the image's longer side at scale 1, in pixels; None: the image's own size.
        short_side: the base size of the image's shorter side, instead of `long_side`; the longer one is limited to four
            times it, as mmsegmentation's (2048, 512).
        align_corners: of the bilinear interpolation (without antialiasing) of images, scores and logits.
    """

    crop: int | None = None
    stride: float = 1.0
    windows: Windows = "released"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: Average = "softmax"
    long_side: int | None = None
    short_side: int | None = None
    align_corners: bool = True

    def base(self, height: int, width: int) -> int | None:
        """Return the image's longer side at scale 1, in pixels; None: its own."""
        if self.short_side is None:
            return self.long_side
        return min(4 * self.short_side, round(self.short_side * max(height, width) / min(height, width)))


WHOLE = Protocol(average="logits", align_corners=False)
"""The whole image once, the default of `danet predict`."""

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.2)
"""The paper, "Ablation Study for Improvement Strategies"."""

RELEASED_SINGLE_CITYSCAPES = Protocol(crop=768, stride=2 / 3, flip=True, average="exp", long_side=2048)
"""What the released code calls single-scale, used for its ablations. It flips nevertheless."""

RELEASED_MULTI_CITYSCAPES = replace(RELEASED_SINGLE_CITYSCAPES, crop=1024, stride=1 / 2, scales=PAPER_SCALES)
"""The released code of 2018-2019, which gave the paper's multi-scale row."""

RELEASED_MULTI = replace(RELEASED_MULTI_CITYSCAPES, crop=576, long_side=608)
"""The same with the released code's default crop and base size: VOC, PASCAL Context, COCO-Stuff."""

PAPER_MULTI = Protocol(crop=1024, stride=1 / 2, windows="shifted", scales=PAPER_SCALES, flip=True)
"""The paper: "we average the segmentation probability maps from 8 image scales". It does not mention flipping or
windows: these are the released code's, without black padding, so that small images are segmented whole. The base size
is the card's, otherwise the image's own.
"""

MMSEG_SLIDE_769 = Protocol(crop=769, stride=513 / 769, windows="shifted", average="logits")
"""mmsegmentation's networks of crop 769: stride 513, align_corners."""

MMSEG_WHOLE = WHOLE
"""mmsegmentation's networks of crop 512 x 1024."""

MMSEG_WHOLE_512 = replace(MMSEG_WHOLE, short_side=512)
"""mmsegmentation's networks of crop 512 x 512: VOC and ADE20K."""

MMSEG_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

MMSEG_SLIDE_769_MULTI = replace(MMSEG_SLIDE_769, scales=MMSEG_SCALES, flip=True, average="softmax")
"""mmsegmentation's "ms+flip". It averages the logits of a view's windows, interpolates them to the image's size, and
then applies softmax; here softmax comes first.
"""

MMSEG_WHOLE_512_MULTI = replace(MMSEG_WHOLE_512, scales=MMSEG_SCALES, flip=True, average="softmax")
"""The same over whole images whose short side has 512 pixels at scale 1."""

PROTOCOLS = {
    "whole": WHOLE,
    "paper-multi": PAPER_MULTI,
    "released-single-cityscapes": RELEASED_SINGLE_CITYSCAPES,
    "released-multi-cityscapes": RELEASED_MULTI_CITYSCAPES,
    "released-multi": RELEASED_MULTI,
    "mmseg-whole": MMSEG_WHOLE,
    "mmseg-whole-512": MMSEG_WHOLE_512,
    "mmseg-whole-512-multi": MMSEG_WHOLE_512_MULTI,
    "mmseg-slide-769": MMSEG_SLIDE_769,
    "mmseg-slide-769-multi": MMSEG_SLIDE_769_MULTI,
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol with this name.

    Raises:
        InputError: an unknown name; the message suggests the nearest one.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def as_protocol(protocol: Protocol | str) -> Protocol:
    """Return a protocol that is given as such or by its name.

    Raises:
        InputError: neither, or an unknown name.
    """
    if isinstance(protocol, str):
        return find_protocol(protocol)
    if not isinstance(protocol, Protocol):
        what = f"is of type {type(protocol).__name__}"
        raise InputError("protocol", what, f"use a Protocol or a name, such as {next(iter(PROTOCOLS))}")
    return protocol


def check(protocol: Protocol) -> None:
    """Check the values of a protocol.

    Raises:
        InputError: a value is out of range; it names the field.
    """
    if protocol.crop is not None and protocol.crop < 1:
        raise InputError("protocol.crop", f"must be at least 1 pixel, got {protocol.crop}", "use None for whole images")
    if not 0 < protocol.stride <= 1:
        raise InputError("protocol.stride", f"must be in (0, 1], got {protocol.stride}", "use a fraction of the crop")
    if not protocol.scales:
        raise InputError("protocol.scales", "must not be empty", "use (1.0,) for the image's own scale")
    for scale in protocol.scales:
        if not (scale > 0 and math.isfinite(scale)):
            raise InputError("protocol.scales", f"must be positive numbers, got {scale}", "use factors such as 0.75")
    for name, side in (("long_side", protocol.long_side), ("short_side", protocol.short_side)):
        if side is not None and side < 1:
            raise InputError(f"protocol.{name}", f"must be at least 1 pixel, got {side}", "use None for the own size")
    if protocol.long_side is not None and protocol.short_side is not None:
        raise InputError("protocol.short_side", "conflicts with protocol.long_side", "set only one of them")
    for name, value, known in (("windows", protocol.windows, Windows), ("average", protocol.average, Average)):
        if value not in get_args(known):
            remedy = f"use one of {', '.join(get_args(known))}"
            raise InputError(f"protocol.{name}", f"{value!r} is unknown", remedy)
