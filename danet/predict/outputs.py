"""The names of output files, by the kind of their input."""

from pathlib import Path
from typing import Literal

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
