"""Draw results: labels in their classes' colors, overlays, legends and heat maps."""

import io
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from danet.data.classes import IGNORE, Classes, Color
from danet.data.images.channels import as_rgb
from danet.data.images.results import MARK
from danet.errors import printable
from danet.predict.fonts import choose_font
from danet.predict.png import LONG_ROW, encode_long_rows
from danet.predict.resampling import tiles

OPACITY = 0.55
"""Opacity of the colors of an overlay."""

LARGEST_TEXT = 96
"""Maximum size of a legend's text, in pixels."""

_TILE = 1 << 15  # pixels drawn at once: they fit into the CPU cache
_LONGEST_TEXT = 60  # characters
_TINY = 256  # pixels of the long side: smaller images are enlarged by whole numbers up to it
_SAMPLED = 100_000  # pixels
_LISTED = 0.0005  # share of the pixels, of classes in legends
_LEGEND_PIXELS = 1 << 24  # that a legend may always add to an image


def colored(labels: np.ndarray, classes: Classes) -> np.ndarray:
    """Return train ids H,W as colors H,W,3 uint8; 255 is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.palette
    return table[labels]


def overlay(image: np.ndarray, labels: np.ndarray, classes: Classes, opacity: float = OPACITY) -> np.ndarray:
    """Return the image blended with its labels' colors, H,W,3 uint8, with white borders between the classes.

    Args:
        image: H,W,N, see `as_rgb`.
        labels: H,W uint8 train ids.
        classes: names and palette.
        opacity: of the colors, in [0, 1]. A background next to a single other class gets none, see
            `Classes.uncolored`.
    """
    strength = np.full((256, 1), opacity)
    if classes.uncolored is not None:
        strength[classes.uncolored] = 0
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    drawn = np.empty((*labels.shape, 3), np.uint8)
    for tile in tiles(labels.shape[0], labels.shape[1], 1, _TILE):
        share = opacity if classes.uncolored is None else strength[labels[tile]]
        mixed = as_rgb(image[tile]) * (1 - share) + colored(labels[tile], classes) * share
        mixed[border[tile]] = 0.4 * mixed[border[tile]] + 0.6 * 255
        drawn[tile] = mixed.round()
    return drawn


def class_colors(image: np.ndarray, labels: np.ndarray, classes: Classes, opacity: float = OPACITY) -> dict[int, Color]:
    """Return the mean color of each class in an overlay, by train id, without borders; arguments as in `overlay`.

    It is measured on at most about 100,000 pixels. Classes that are in none of them are left out. Pixels labeled 255,
    which are drawn black, have a mean color too.
    """
    step = max(1, math.ceil(math.sqrt(labels.size / _SAMPLED)))
    sample, shown = labels[::step, ::step].ravel(), as_rgb(image[::step, ::step]).reshape(-1, 3)
    counts = np.bincount(sample, minlength=256)
    means = [np.bincount(sample, shown[:, i], 256) / np.maximum(counts, 1) for i in range(3)]
    palette, colors = {IGNORE: (0, 0, 0), **dict(enumerate(classes.palette))}, {}
    for i in np.flatnonzero(counts).tolist():
        strength = 0 if i == classes.uncolored else opacity
        under = [float(mean[i]) for mean in means]
        red, green, blue = (round((1 - strength) * a + strength * b) for a, b in zip(under, palette[i], strict=True))
        colors[i] = (red, green, blue)
    return colors


def enlargement(size: tuple[int, int]) -> int:
    """Return the factor by which an overlay of an image of this height and width is enlarged: 1 unless it is tiny."""
    return max(1, _TINY // max(size))


def label_image(labels: np.ndarray, classes: Classes) -> Image.Image:
    """Return train ids H,W as a palette image: pixel values are ids, and any viewer shows the colors."""
    image = Image.fromarray(labels).convert("L")
    # all 256 colors: Pillow would clip ids to a shorter palette
    colors = [*classes.palette, *[(0, 0, 0)] * (256 - len(classes))]
    image.putpalette(bytes(channel for color in colors for channel in color))
    return image


def to_png(image: Image.Image, files: Sequence[str] = ()) -> bytes:
    """Encode an image as PNG.

    zlib only looks for runs: compared with its default level 6, overlays take a quarter of the time and 2% more bytes,
    labels a third of the time and fewer bytes.

    Args:
        image: the image.
        files: the ends of the names of the files that are written with it, which the PNG names in its text `MARK`;
            without them, it has no text.
    """
    texts = {MARK: " ".join(files)} if files else {}
    if image.width >= LONG_ROW:
        return encode_long_rows(image, 1, zlib.Z_RLE, texts)
    content, info = io.BytesIO(), PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    image.save(content, "png", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=info)
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
    font = choose_font([name for name, _ in entries], text)
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
        pen, size, font = ImageDraw.Draw(page), legend.text, choose_font([text for text, _ in entries], legend.text)
        for i, (text, color) in enumerate(entries):
            x, y = width + size, size + i * round(1.7 * size)
            pen.rectangle((x, y, x + size, y + size), fill=color, outline="black")
            pen.text((x + 2 * size, y + size / 2), text, fill="black", font=font, anchor="lm")
    return page


def share_legend(
    classes: Classes, shares: Iterable[tuple[int, float]], colors: Mapping[int, Color] | None = None
) -> list[tuple[str, Color]]:
    """Return the entries of a legend: the name and the share of each class, and its color.

    Args:
        classes: names and palette.
        shares: (train id, share). Classes with less than 0.05% of the pixels get no entry.
        colors: see `class_colors`; None, or a class that is not in it: the color of the palette.
    """
    return [
        (f"{_shortened(classes.names[i])}  {share_text(share)}", (colors or {}).get(i, classes.palette[i]))
        for i, share in shares
        if share >= _LISTED
    ]


def share_text(share: float, digits: int = 1) -> str:
    """Return a share in percent, for example "12.3%"; only 0 and 1 become 0% and 100%, others "<0.1%" or ">99.9%"."""
    least = 10.0**-digits
    if 0 < share < least / 200:
        return f"<{least:.{digits}f}%"
    return f">{100 - least:.{digits}f}%" if 1 - least / 200 <= share < 1 else f"{share:.{digits}%}"


def _shortened(name: str) -> str:
    line = printable(name)
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 3]}..."


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
