"""How an image is shown to a network and how the answers are averaged: the protocols of the paper, of the released
code and of mmsegmentation, as named values.
"""

import difflib
import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from danet.errors import InputError

Windows = Literal["released", "shifted"]
Average = Literal["logits", "softmax", "exp"]


@dataclass(frozen=True)
class Protocol:
    """Every view of an image (a scale, mirrored or not) goes through the network, and the views are averaged.

    Args:
        crop: side in pixels of the square window that slides over each view; None: the view goes through whole.
        stride: step from a window to the next, a fraction of the crop in (0, 1], rounded down to pixels.
        windows: "released": at multiples of the stride, padded black at the right and the bottom, as the released code
            does; "shifted": the last ones shifted back into the image, smaller than the crop only where the image
            is, as mmsegmentation does.
        scales: factors of the base size, each > 0.
        flip: each window is seen mirrored too.
        average: "softmax": the mean of the views' probabilities, the paper's words. "logits": the mean of the logits,
            mmsegmentation's rule within a slide. "exp": exp(logits + mirrored logits), the mean over windows and the
            sum over scales, the released code's rule; it lets views with large logits weigh more.
        long_side: the base size: the image's longer side at scale 1, in pixels; None: as the image is.
        short_side: in its stead the base size of the image's shorter side; the longer one is kept to four times it,
            mmsegmentation's (2048, 512).
        align_corners: how images and scores are interpolated (bilinear, not antialiased), and logits that come
            smaller than the network's input.
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
        """The longer side at scale 1, in pixels; None: as the image is."""
        if self.short_side is None:
            return self.long_side
        return min(4 * self.short_side, round(self.short_side * max(height, width) / min(height, width)))


WHOLE = Protocol(average="logits", align_corners=False)
"""One view, brought to the image's size: what `danet predict` does."""

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.2)
"""The paper, "Ablation Study for Improvement Strategies"."""

RELEASED_SINGLE_CITYSCAPES = Protocol(crop=768, stride=2 / 3, flip=True, average="exp", long_side=2048)
"""What the released code calls single-scale: its ablations. It mirrors nevertheless."""

RELEASED_MULTI_CITYSCAPES = replace(RELEASED_SINGLE_CITYSCAPES, crop=1024, stride=1 / 2, scales=PAPER_SCALES)
"""The released code of 2018-2019, behind the paper's multi-scale row."""

RELEASED_MULTI = replace(RELEASED_MULTI_CITYSCAPES, crop=576, long_side=608)
"""The same with the crop and the base size of its options' defaults: VOC, PASCAL Context, COCO-Stuff."""

PAPER_MULTI = Protocol(crop=1024, stride=1 / 2, windows="shifted", scales=PAPER_SCALES, flip=True)
"""The paper's words: "we average the segmentation probability maps from 8 image scales". It is silent on mirroring and
windows: these are the released code's, less the black padding, so that small images go through whole. The base size
is the one that the weights name, else the image's own.
"""

MMSEG_SLIDE_769 = Protocol(crop=769, stride=513 / 769, windows="shifted", average="logits")
"""mmsegmentation's networks of crop 769: stride 513, align_corners."""

MMSEG_WHOLE = WHOLE
"""mmsegmentation's networks of crop 512 x 1024."""

MMSEG_WHOLE_512 = replace(MMSEG_WHOLE, short_side=512)
"""mmsegmentation's networks of crop 512 x 512: VOC and ADE20K."""

MMSEG_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

MMSEG_SLIDE_769_MULTI = replace(MMSEG_SLIDE_769, scales=MMSEG_SCALES, flip=True, average="softmax")
"""mmsegmentation's "ms+flip". It averages the logits of a view's windows, brings them to the image's size and then
takes their softmax; here the softmax comes first.
"""

MMSEG_WHOLE_512_MULTI = replace(MMSEG_WHOLE_512, scales=MMSEG_SCALES, flip=True, average="softmax")
"""The same over whole images, 512 pixels being their short side at scale 1."""

PROTOCOLS = {
    "whole": WHOLE,
    "released-single-cityscapes": RELEASED_SINGLE_CITYSCAPES,
    "released-multi-cityscapes": RELEASED_MULTI_CITYSCAPES,
    "released-multi": RELEASED_MULTI,
    "paper-multi": PAPER_MULTI,
    "mmseg-slide-769": MMSEG_SLIDE_769,
    "mmseg-slide-769-multi": MMSEG_SLIDE_769_MULTI,
    "mmseg-whole": MMSEG_WHOLE,
    "mmseg-whole-512": MMSEG_WHOLE_512,
    "mmseg-whole-512-multi": MMSEG_WHOLE_512_MULTI,
}


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        InputError: there is none; the nearest name is proposed.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        raise InputError(
            "--protocol", f"{name!r} is unknown", f"did you mean {near[0]}?" if near else f"use {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[name]


def check(protocol: Protocol) -> None:
    """Raises InputError, naming the field, for a protocol that cannot be followed."""
    if protocol.crop is not None and protocol.crop < 1:
        raise InputError("protocol's crop", f"{protocol.crop} is less than 1", "give pixels, or None for whole images")
    if not 0 < protocol.stride <= 1:
        raise InputError("protocol's stride", f"{protocol.stride} is not in (0, 1]", "give a fraction of the crop")
    if not protocol.scales:
        raise InputError("protocol's scales", "there are none", "give at least 1.0")
    for scale in protocol.scales:
        if not (scale > 0 and math.isfinite(scale)):
            raise InputError("protocol's scales", f"{scale} is not a positive number", "give factors such as 0.75")
    for name, side in (("long", protocol.long_side), ("short", protocol.short_side)):
        if side is not None and side < 1:
            raise InputError(f"protocol's {name} side", f"{side} is less than 1", "give pixels, or None")
    if protocol.long_side is not None and protocol.short_side is not None:
        raise InputError("protocol's short side", "is given beside a long side", "give one of them")
    for name, value, known in (("windows", protocol.windows, Windows), ("average", protocol.average, Average)):
        if value not in get_args(known):
            raise InputError(f"protocol's {name}", f"{value!r} is unknown", f"give one of {', '.join(get_args(known))}")
