"""From a picture to scores, over any callable that maps normalised images B,3,H,W to logits B,K,H',W' (a network, an
exported model): whole, by sliding windows, at several scales, mirrored.

Used by `predict`, `evaluate` and `train` (validation).
"""

from danet.inference.averaging import Logits, averaged
from danet.inference.picture import normalise, resized, scores, segment
from danet.inference.protocol import (
    MMSEG_SLIDE_769,
    MMSEG_WHOLE,
    MMSEG_WHOLE_512,
    PAPER_MULTI,
    PROTOCOLS,
    RELEASED_MULTI_CITYSCAPES,
    RELEASED_SINGLE_CITYSCAPES,
    WHOLE,
    Protocol,
    find_protocol,
)

__all__ = [
    "MMSEG_SLIDE_769",
    "MMSEG_WHOLE",
    "MMSEG_WHOLE_512",
    "PAPER_MULTI",
    "PROTOCOLS",
    "RELEASED_MULTI_CITYSCAPES",
    "RELEASED_SINGLE_CITYSCAPES",
    "WHOLE",
    "Logits",
    "Protocol",
    "averaged",
    "find_protocol",
    "normalise",
    "resized",
    "scores",
    "segment",
]
