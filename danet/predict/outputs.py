"""The output files: their names by the kind of their input, and those that are computed from probabilities."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from danet.errors import InputError

Kind = Literal["image", "geo", "video", "large"]

OUTPUTS: dict[Kind, tuple[str, ...]] = {
    "image": ("_overlay.png", "_labels.png", ".json"),
    "geo": ("_overlay.png", "_labels.tif", ".json"),
    "video": ("_overlay.mp4", ".json"),
    "large": ("_overlay.png", "_labels.tif", ".json"),
}
"""Suffixes of the output files, which are added to the input's stem; the last is written last.

A "geo" image is a TIFF with coordinates, which its labels get too. Large images have more than MAX_PIXELS pixels.
"""

POLYGONS = ".geojson"
"""Suffix of the polygons of an image with coordinates."""


def output_paths(folder: Path, stem: str, kind: Kind = "image") -> list[Path]:
    """Return the paths of the output files of an input with this stem."""
    return [folder / f"{stem}{suffix}" for suffix in OUTPUTS[kind]]


ProbabilityFormat = Literal["npy", "png"]

ARRAY, MARGIN = "_probabilities.npy", "_margin.png"
"""Ends of the names of the files of `Maps`."""


@dataclass(frozen=True)
class Maps:
    """What to compute from the probabilities of an image's classes.

    Args:
        probabilities: "npy": write NAME_probabilities.npy, K,H,W float16. "png": write NAME_probability_ID.png for each
            class, 8-bit gray, where 255 means 1. None: do not write them.
        margin: write NAME_margin.png, 8-bit gray: the probability of each pixel's class minus that of the second most
            probable one, where 255 means 1.
        min_confidence: give pixels with a lower confidence the label 255, unknown.

    Raises:
        InputError: a confidence that is not from 0 to 1.
    """

    probabilities: ProbabilityFormat | None = None
    margin: bool = False
    min_confidence: float | None = None

    def __post_init__(self):
        if self.min_confidence is not None:
            check_confidence(self.min_confidence)

    @property
    def written(self) -> bool:
        """Whether files are written that need the probabilities of all classes."""
        return self.probabilities is not None or self.margin

    @property
    def names(self) -> list[str]:
        """The parameters that are set."""
        return [name for name, default in vars(Maps()).items() if getattr(self, name) != default]

    def suffixes(self, classes: int) -> tuple[str, ...]:
        """Return the ends of the names of the files, for a network of this many classes."""
        planes = tuple(f"_probability_{i}.png" for i in range(classes)) if self.probabilities == "png" else ()
        return (*planes, *([ARRAY] if self.probabilities == "npy" else []), *([MARGIN] if self.margin else []))


NO_MAPS = Maps()


def check_confidence(value: float) -> None:
    """Check the limit below which a pixel's class is unknown.

    Raises:
        InputError: it is not from 0 to 1.
    """
    if not isinstance(value, Real) or not 0 <= value <= 1:
        shown = f"{value:g}" if isinstance(value, Real) else repr(value)
        raise InputError("min_confidence", f"must be from 0 to 1, got {shown}", "for example, use 0.5")


def read_summary(path: Path) -> Mapping[str, Any] | InputError:
    """Return the summary of an image that an earlier run wrote as JSON, or the error that it is none."""
    try:
        summary = json.loads(path.read_bytes())
        _ = summary["width"], summary["height"], [(entry["name"], entry["share"]) for entry in summary["classes"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return InputError(path, "is not a result of danet predict", "choose another `out`, or move it away")
    return summary
