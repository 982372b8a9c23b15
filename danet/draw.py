"""Pictures of results: labels in their colours, overlays, legends. Used by `predict` and `train.report`."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from danet.data.labels import IGNORE, Classes, Colour


def coloured(labels: np.ndarray, classes: Classes) -> np.ndarray:
    """H,W train ids -> H,W,3 uint8 in the classes' colours; 255 is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.palette
    return table[labels]


def overlay(image: np.ndarray, labels: np.ndarray, classes: Classes, opacity: float = 0.55) -> np.ndarray:
    """The picture, H,W,3 uint8, under its labels' colours; the borders between classes are drawn white."""
    mixed = image * (1 - opacity) + coloured(labels, classes) * opacity
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    mixed[border] = 0.4 * mixed[border] + 0.6 * 255
    return mixed.round().astype(np.uint8)


def label_image(labels: np.ndarray, classes: Classes) -> Image.Image:
    """H,W train ids as a palette picture: the pixel values are the ids, any viewer shows the colours."""
    image = Image.fromarray(labels).convert("L")
    # all 256 colours: Pillow would cut the ids beyond a shorter palette
    colours = [*classes.palette, *[(0, 0, 0)] * (256 - len(classes))]
    image.putpalette(bytes(channel for colour in colours for channel in colour))
    return image


def with_legend(image: np.ndarray, entries: Sequence[tuple[str, Colour]]) -> Image.Image:
    """The picture with a column of colour swatches and texts at its right, for the entries in their order."""
    height, width = image.shape[:2]
    size = int(np.clip(height / (1.7 * max(len(entries), 1) + 1), 9, max(9, height / 26)))
    font = ImageFont.load_default(size)
    text_width = max((font.getlength(text) for text, _ in entries), default=0)
    line, margin = round(1.7 * size), size
    panel = round(3 * margin + size + text_width)
    total = max(height, 2 * margin + line * len(entries))
    page = Image.new("RGB", (width + panel, total), "white")
    page.paste(Image.fromarray(image), (0, 0))
    pen = ImageDraw.Draw(page)
    for i, (text, colour) in enumerate(entries):
        x, y = width + margin, margin + i * line
        pen.rectangle((x, y, x + size, y + size), fill=colour, outline="black")
        pen.text((x + size + margin, y + size / 2), text, fill="black", font=font, anchor="lm")
    return page


def present(labels: np.ndarray, classes: Classes) -> list[tuple[int, float]]:
    """The classes in the labels with their share of the valid pixels, largest first."""
    counts = np.bincount(labels[labels != IGNORE].ravel(), minlength=len(classes))
    order = np.argsort(-counts, kind="stable")
    return [(int(i), float(counts[i] / counts.sum())) for i in order if counts[i]]
