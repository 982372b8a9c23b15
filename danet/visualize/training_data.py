"""What a run trains on, in its report: a batch as the network sees it, and how frequent the classes are."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer
from PIL import Image

from danet.data.classes import IGNORE, Classes
from danet.data.images.channels import as_rgb
from danet.evaluate.confusion import Confusion
from danet.predict import overlay
from danet.visualize.html import Section, bar, data_uri, encoded, escape, swatch, table
from danet.visualize.worst_images import hatched

SAMPLES = 8
"""Maximum number of samples in a preview."""

_COLUMNS, _SIDE, _GAP = 4, 280, 6  # in pixels
_MOST_ROWS = 250  # of the table


class TrainingData(NamedTuple):
    """What was recorded of a run's training data.

    Args:
        preview: JPEG of a batch, see `draw`; None if it was not recorded.
        pixels: of each class in the label maps that were counted; empty if they were not.
        counted: number of these label maps.
        images: number of images in the training set.
    """

    preview: bytes | None = None
    pixels: Sequence[int] = ()
    counted: int = 0
    images: int = 0


NOTHING = TrainingData()
"""Nothing was recorded."""


def draw(images: Sequence[np.ndarray], labels: Sequence[Integer[np.ndarray, "H W"]], classes: Classes) -> bytes:
    """Draw a batch as JPEG: rows of images, each with a row of the same images with their labels below.

    Args:
        images: H,W,N, all of one size; at most `SAMPLES` of them are drawn.
        labels: train ids; ignored pixels get gray stripes.
        classes: the classes.
    """
    height, width = images[0].shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    cell = max(1, round(width * factor)), max(1, round(height * factor))
    pairs = list(zip(images, labels, strict=True))[:SAMPLES]
    columns = min(len(pairs), _COLUMNS)
    rows = math.ceil(len(pairs) / columns)
    across, down = cell[0] + _GAP, cell[1] + _GAP
    page = Image.new("RGB", (columns * across - _GAP, 2 * rows * down - _GAP), "white")
    for i, (image, ids) in enumerate(pairs):
        row, column = divmod(i, columns)
        colored = overlay.overlay(image, ids.astype(np.uint8), classes)
        for k, pixels in enumerate((as_rgb(image), hatched(colored, ids == IGNORE))):
            small = Image.fromarray(pixels).resize(cell, Image.Resampling.LANCZOS)
            page.paste(small, (column * across, (2 * row + k) * down))
    return encoded(page, "JPEG", quality=88, subsampling=0)


def section(data: TrainingData, confusion: Confusion, classes: Classes) -> list[Section]:
    """Return a section with the preview and the shares of the classes; none if neither was recorded.

    Args:
        data: of the run.
        confusion: of the validation images.
        classes: the classes.
    """
    parts = []
    if data.preview is not None:
        about = (
            "The first batch as the network sees it, cropped, scaled and augmented: images, and below them the same "
            "images with their labels. Gray stripes: not labeled, or outside the image; not counted."
        )
        uri = data_uri(data.preview)
        parts.append(f'<figure class="preview"><img alt="training images with their labels" src="{uri}"></figure>')
        parts.append(f'<p class="note">{about}</p>')
    if len(data.pixels) == len(classes) and sum(data.pixels):
        parts.append(_shares(data, confusion, classes))
    return [Section("Training data", "".join(parts))] if parts else []


def _shares(data: TrainingData, confusion: Confusion, classes: Classes) -> str:
    pixels = np.array(data.pixels), confusion.matrix.sum(1)
    train, validation = (counts / max(counts.sum(), 1) for counts in pixels)
    order = np.argsort(-train, kind="stable").tolist()[:_MOST_ROWS]
    rows = [
        [swatch(classes.palette[i]) + escape(classes.names[i]), _share(float(train[i])), _share(float(validation[i]))]
        for i in order
    ]
    counted = f"{data.counted} of the {data.images}" if data.counted < data.images else f"the {data.images}"
    about = f"Share of the labeled pixels, in {counted} training images and in the validation images"
    caption = f"{about}, most frequent class first"
    return table(["class", "training", "validation"], rows, caption)


def _share(fraction: float) -> str:
    """Return a bar and its share; a class without pixels gets none, since it is not learned or not measured."""
    return bar(fraction, text=overlay.share_text(fraction)) if fraction else '<span class="number">none</span>'
