"""Draw the confusion matrix as a PNG image for print: `danet evaluate --confusion FILE.png`."""

import io
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

from danet.data.classes import Classes
from danet.evaluate.confusion import Confusion
from danet.predict.fonts import Font, choose_font

_SIDE, _CELLS = 1800, (16, 120)  # pixels of the matrix, and limits of its cells
_FULL, _NO_PIXELS, _GRID = (0, 90, 150), 225, (205, 205, 205)
_TITLE = "row: true class; column: predicted; in % of the row's pixels"


def confusion_png(confusion: Confusion, classes: Classes) -> bytes:
    """Return a PNG of the confusion matrix: row = true class, column = predicted; darker cells have larger shares.

    Cells show their share of the row's pixels in %, if it fits and is at least 0.5. Rows without pixels are gray. The
    size is meant for print at 300 dots per inch.

    Args:
        confusion: counts of pixels.
        classes: their names.
    """
    cell = int(np.clip(_SIDE // len(classes), *_CELLS))
    names = [" ".join(name.split()) for name in classes.names]
    font = choose_font(names, max(min(0.75 * cell, 34), 1))
    gap, side = max(cell // 3, 1), cell * len(classes)
    left = max(ceil(font.getlength(name)) for name in names) + 2 * gap
    title, top = choose_font(_TITLE, 28), left + 56
    page = Image.new("RGB", (max(left + side, round(title.getlength(_TITLE))) + gap, top + side + gap), "white")
    pen = ImageDraw.Draw(page)
    pen.text((gap, gap), _TITLE, fill="black", font=title)
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        pen.text((left - gap, top + middle), name, fill="black", font=font, anchor="rm")
        upright = _upright(name, font)
        page.paste("black", (round(left + middle - upright.width / 2), top - gap - upright.height), upright)
    pixels = confusion.matrix.sum(1, keepdims=True)
    shares = confusion.matrix / np.maximum(pixels, 1)
    page.paste(_cells(shares, pixels > 0).resize((side, side), Image.Resampling.NEAREST), (left, top))
    for edge in range(0, side + 1, cell):
        pen.line((left + edge, top, left + edge, top + side), _GRID)
        pen.line((left, top + edge, left + side, top + edge), _GRID)
    if cell >= 26:
        _write_numbers(pen, shares, (left, top), cell, choose_font((), max(min(0.42 * cell, 30), 1)))
    file = io.BytesIO()
    page.save(file, "PNG", dpi=(300, 300))
    return file.getvalue()


def _cells(shares: np.ndarray, labeled: np.ndarray) -> Image.Image:
    """Return an image with one pixel per cell."""
    colors = 255 - shares[..., None] * (255 - np.array(_FULL))
    return Image.fromarray(np.where(labeled[..., None], colors, _NO_PIXELS).round().astype(np.uint8))


def _write_numbers(
    pen: ImageDraw.ImageDraw, shares: np.ndarray, corner: tuple[int, int], cell: int, font: Font
) -> None:
    for row, column in np.argwhere(shares >= 0.005).tolist():
        share = shares[row, column]
        center = corner[0] + (column + 0.5) * cell, corner[1] + (row + 0.5) * cell
        pen.text(center, f"{100 * share:.0f}", fill="white" if share > 0.6 else "black", font=font, anchor="mm")


def _upright(text: str, font: Font) -> Image.Image:
    """Return a mask of the text, rotated to be read from below."""
    _, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (ceil(right) + 1, ceil(bottom) + 1))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return mask.crop((0, int(top), mask.width, mask.height)).transpose(Image.Transpose.ROTATE_90)
