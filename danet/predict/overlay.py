"""Draw results: labels in their classes' colors, overlays, legends and heat maps."""

import io
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from danet.data.classes import Classes, Color
from danet.data.images.channels import as_rgb
from danet.errors import printable
from danet.predict.resampling import tiles

LARGEST_TEXT = 96
"""Maximum size of a legend's text, in pixels."""

_TILE = 1 << 15  # pixels drawn at once: they fit into the CPU cache
_LONGEST_TEXT = 60  # characters
_LEGEND_PIXELS = 1 << 24  # that a legend may always add to an image


def colored(labels: np.ndarray, classes: Classes) -> np.ndarray:
    """Return train ids H,W as colors H,W,3 uint8; 255 is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.palette
    return table[labels]


def overlay(image: np.ndarray, labels: np.ndarray, classes: Classes, opacity: float = 0.55) -> np.ndarray:
    """Return the image blended with its labels' colors, H,W,3 uint8, with white borders between the classes.

    Args:
        image: H,W,N, see `as_rgb`.
        labels: H,W uint8 train ids.
        classes: names and palette.
        opacity: of the colors, in [0, 1].
    """
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    drawn = np.empty((*labels.shape, 3), np.uint8)
    for tile in tiles(labels.shape[0], labels.shape[1], 1, _TILE):
        mixed = as_rgb(image[tile]) * (1 - opacity) + colored(labels[tile], classes) * opacity
        mixed[border[tile]] = 0.4 * mixed[border[tile]] + 0.6 * 255
        drawn[tile] = mixed.round()
    return drawn


def label_image(labels: np.ndarray, classes: Classes) -> Image.Image:
    """Return train ids H,W as a palette image: pixel values are ids, and any viewer shows the colors."""
    image = Image.fromarray(labels).convert("L")
    # all 256 colors: Pillow would clip ids to a shorter palette
    colors = [*classes.palette, *[(0, 0, 0)] * (256 - len(classes))]
    image.putpalette(bytes(channel for color in colors for channel in color))
    return image


def to_png(image: Image.Image) -> bytes:
    """Encode an image as PNG.

    zlib only looks for runs: compared with its default level 6, overlays take a quarter of the time and 2% more bytes,
    labels a third of the time and fewer bytes.
    """
    content = io.BytesIO()
    image.save(content, "png", compress_level=1, compress_type=zlib.Z_RLE)
    return content.getvalue()


class _Legend(NamedTuple):
    """Size of a legend's text, and of the page that holds image and legend, in pixels."""

    text: int
    page: tuple[int, int]


def _layout(size: tuple[int, int], entries: Sequence[tuple[str, Color]]) -> _Legend | None:
    """Return the layout of a legend at the right of an image, or None if it would be far larger than the image.

    Its text grows with the image, up to `LARGEST_TEXT`.

    Args:
        size: height and width of the image.
        entries: see `with_legend`.
    """
    height, width = size
    largest = max(9, min(height, 2 * width) / 26)
    text = int(np.clip(height / (1.7 * max(len(entries), 1) + 1), 9, min(largest, LARGEST_TEXT)))
    font = ImageFont.load_default(text)
    text_width = max((font.getlength(name) for name, _ in entries), default=0)
    page = max(height, 2 * text + round(1.7 * text) * len(entries)), width + round(4 * text + text_width)
    return _Legend(text, page) if page[0] * page[1] <= 3 * height * width + _LEGEND_PIXELS else None


def page_size(size: tuple[int, int], entries: Sequence[tuple[str, Color]]) -> tuple[int, int]:
    """Return height and width of the image that `with_legend` returns.

    Args:
        size: height and width of its argument.
        entries: of the legend.
    """
    legend = _layout(size, entries)
    return size if legend is None else legend.page


def with_legend(image: np.ndarray, entries: Sequence[tuple[str, Color]]) -> Image.Image:
    """Return the image with a legend at its right: a color swatch and a text per entry.

    A strip with over 16 million pixels for its legend, more than twice its own, gets none.

    Args:
        image: H,W,3 uint8.
        entries: texts of one line, and colors.
    """
    height, width = image.shape[:2]
    legend = _layout((height, width), entries)
    total = (height, width) if legend is None else legend.page
    page = Image.new("RGB", (total[1], total[0]), "white")
    for rows, columns in tiles(height, width, 1, 1 << 20):
        page.paste(Image.fromarray(image[rows, columns]), (columns.start, rows.start))
    if legend is not None:
        pen, size, font = ImageDraw.Draw(page), legend.text, ImageFont.load_default(legend.text)
        for i, (text, color) in enumerate(entries):
            x, y = width + size, size + i * round(1.7 * size)
            pen.rectangle((x, y, x + size, y + size), fill=color, outline="black")
            pen.text((x + 2 * size, y + size / 2), text, fill="black", font=font, anchor="lm")
    return page


def share_legend(classes: Classes, shares: Iterable[tuple[int, float]]) -> list[tuple[str, Color]]:
    """Return the entries of a legend with the name and the share of each class, from (train id, share)."""
    return [(f"{_shortened(classes.names[i])}  {share:.1%}", classes.palette[i]) for i, share in shares]


def _shortened(name: str) -> str:
    line = printable(name)
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"


def heat(values: np.ndarray) -> np.ndarray:
    """Return numbers in [0, 1], of any shape *S, as colors *S,3 uint8 from dark blue (0) to light yellow (1).

    The colors are a straight line in Oklab: equal steps look equal, lightness alone distinguishes them in print, and
    color-blind readers can tell blue from yellow.
    """
    low, high = np.array([0.22, -0.01, -0.10]), np.array([0.93, -0.045, 0.165])  # within the sRGB gamut
    lab = low + np.clip(values, 0, 1)[..., None] * (high - low)
    light = (lab @ _OKLAB_TO_LMS) ** 3 @ _LMS_TO_RGB
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return (255 * encoded.clip(0, 1)).round().astype(np.uint8)


_OKLAB_TO_LMS = np.array(
    [
        [1.0, 1.0, 1.0],
        [0.3963377774, -0.1055613458, -0.0894841775],
        [0.2158037573, -0.0638541728, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -1.2684380046, -0.0041960863],
        [-3.3077115913, 2.6097574011, -0.7034186147],
        [0.2309699292, -0.3413193965, 1.7076147010],
    ]
)
"""From Oklab to linear sRGB, as defined by Bjorn Ottosson."""


def heat_over(image: np.ndarray, values: np.ndarray, opacity: float = 0.75) -> np.ndarray:
    """Return an image H,W,3 uint8, faint and gray, blended with the heat colors of H,W numbers in [0, 1]."""
    gray = image @ np.array([0.299, 0.587, 0.114])
    return (opacity * heat(values) + (1 - opacity) * gray[..., None]).round().astype(np.uint8)


def heat_bar(width: int, height: int) -> Image.Image:
    """Return the color scale of `heat_over`, from 0 at the left to 1 at the right, over medium gray."""
    line = heat_over(np.full((1, width, 3), 128, np.uint8), np.linspace(0, 1, width)[None])
    return Image.fromarray(line.repeat(height, 0))
