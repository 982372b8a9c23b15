"""Panels of labels and of what changes them, and the sheets that attention_figure and attention_page arrange."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from danet.data.classes import IGNORE, Color
from danet.data.images.channels import as_rgb
from danet.predict import overlay
from danet.predict.segmentation import Segmentation

GAP = 24
"""Pixels between neighboring panels."""

_IGNORED: Color = (0, 0, 0)  # as overlays draw it

CORRECTED, BROKEN, CHANGED = (0, 114, 178), (213, 94, 0), (204, 121, 167)  # distinguishable for color-blind readers


class Panel(NamedTuple):
    """A drawing with its texts.

    Args:
        title: above the drawing.
        image: the drawing.
        note: below it.
        scale: the numbers at both ends of the color scale, if it is a heat map.
        bars: name, color and share in [0, 1] of each bar below the drawing.
    """

    title: str
    image: Image.Image
    note: str = ""
    scale: tuple[str, str] | None = None
    bars: Sequence[tuple[str, Color, float]] = ()


class PanelGroup(NamedTuple):
    """Panels next to each other.

    Args:
        title: above the panels.
        panels: in their order.
        legend: name and color of each entry, below the panels.
        text: below the legend.
    """

    title: str
    panels: list[Panel]
    legend: Sequence[tuple[str, Color]] = ()
    text: str = ""


class Sheet(NamedTuple):
    """All panels of a page.

    Args:
        title: of the page.
        groups: below each other.
        width: of the groups without margins, in pixels.
    """

    title: str
    groups: list[PanelGroup]
    width: int


def name_of(segmentation: Segmentation) -> str:
    """Return the image's name, with undecodable bytes escaped."""
    return segmentation.name.encode(errors="backslashreplace").decode()


def column(columns: int, width: int) -> int:
    """Return the width of each of several panels next to each other."""
    return (width - (columns - 1) * GAP) // columns


def legend(segmentation: Segmentation, maps: Iterable[UInt8[np.ndarray, "_ _"] | None]) -> list[tuple[str, Color]]:
    """Return name and color of each class that is in one of the label maps, which may differ in size, and of 255."""
    classes = segmentation.classes
    present = np.unique(np.concatenate([np.unique(labels) for labels in maps if labels is not None]))
    entries = [(classes.names[i], classes.palette[i]) for i in present if i < len(classes)]
    return [*entries, ("ignored", _IGNORED)] if IGNORE in present else entries


def photo(segmentation: Segmentation, width: int) -> Image.Image:
    """Return the image, as RGB, at the width of a panel."""
    return fitted(Image.fromarray(as_rgb(segmentation.image)), width)


def labeled(segmentation: Segmentation, labels: UInt8[np.ndarray, "H W"], width: int) -> Image.Image:
    """Return the image blended with its labels' colors."""
    image = photo(segmentation, width)
    blended = overlay.overlay(np.asarray(image), nearest(labels, image), segmentation.classes, 0.7)
    return Image.fromarray(blended)


def changes(
    before: Segmentation, after: Segmentation, truth: UInt8[np.ndarray, "H W"] | None, width: int
) -> Image.Image:
    """Draw the pixels whose class changes over the faint image.

    With ground truth, only labeled pixels are marked: as corrected, as broken, or as wrong before and after.
    """
    image = photo(after, width)
    old, new = nearest(before.labels, image), nearest(after.labels, image)
    canvas = np.asarray(
        Image.blend(image.convert("L").convert("RGB"), Image.new("RGB", image.size, "white"), 0.6)
    ).copy()
    if truth is None:
        canvas[new != old] = CHANGED
    else:
        right = nearest(truth, image)
        canvas[(new != old) & (right != IGNORE)] = CHANGED
        canvas[(new != old) & (new == right)] = CORRECTED
        canvas[(new != old) & (old == right)] = BROKEN
    return Image.fromarray(canvas)


def fitted(image: Image.Image, width: int) -> Image.Image:
    """Resize to `width`, or to less if the image would be more than twice as high."""
    factor = min(width / image.width, 2 * width / image.height)
    size = max(1, round(factor * image.width)), max(1, round(factor * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def nearest(labels: UInt8[np.ndarray, "H W"], image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """Resize labels to the size of an image."""
    return np.asarray(Image.fromarray(labels).resize(image.size, Image.Resampling.NEAREST))
