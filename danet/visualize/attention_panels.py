"""The single images of `danet look`: each a drawing of a given width, what it shows, its scale and its numbers. Laid
out by `figure` (PNG) and `page` (HTML).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from danet.data.classes import IGNORE, Color
from danet.predict import overlay
from danet.predict.attention import Seen
from danet.visualize.attention_answers import MODULES, Answers, Channel, Off, Point

GAP = 24
"""Pixels between panels side by side."""

MENDED, CORRUPTED, CHANGED = (0, 114, 178), (213, 94, 0), (204, 121, 167)  # Okabe and Ito's, told apart by every eye


class Panel(NamedTuple):
    """A drawing and what stands around it.

    Args:
        scale: the numbers at the low and the high end of the heat's colors, if it has some.
        bars: name, color and share in [0, 1] of each.
    """

    title: str
    image: Image.Image
    note: str = ""
    scale: tuple[str, str] | None = None
    bars: Sequence[tuple[str, Color, float]] = ()


class Section(NamedTuple):
    """Panels side by side, with the colors that they share."""

    title: str
    panels: list[Panel]
    legend: Sequence[tuple[str, Color]] = ()
    text: str = ""


class Sheet(NamedTuple):
    """A page: its title, its sections, and their width between the margins in pixels."""

    title: str
    sections: list[Section]
    width: int


def sheet(answers: Sequence[Answers]) -> Sheet:
    """One image in full; several in a row each, as in Figure 6: image, maps of the points, channel maps,
    prediction, ground truth.
    """
    if len(answers) == 1:
        return Sheet(f"What the network sees in {_name(answers[0])}", _in_full(answers[0], 1560), 1560)
    rows = [_in_a_row(one, 420) for one in answers]
    columns = max(len(row.panels) for row in rows)
    rows.append(Section("Classes", [], _legend(answers), f"{_MARKS} Channel maps: E of Eq. 4."))
    return Sheet(f"What the network sees in {len(answers)} images", rows, 420 * columns + GAP * (columns - 1))


def _in_full(answers: Answers, width: int) -> list[Section]:
    half, third, quarter = (_column(n, width) for n in (2, 3, 4))
    found = [_overview(answers, half if answers.truth is None else third)]
    if answers.points:
        panels = [point_panel(answers.seen, n, point, half) for n, point in enumerate(answers.points, 1)]
        found.append(Section("Position attention: where a point looks", panels, text=f"{_MARKS} {_BARS}"))
    if answers.channels:
        panels = [channel_panel(answers.seen, channel, third) for channel in answers.channels]
        panels.append(channel_attention_panel(answers.seen, max(third // 2, min(third, panels[0].image.height))))
        found.append(Section("Channel attention: what a channel answers to", panels, text=_MAPS))
    return found + [_comparison(answers, off, third if answers.truth is None else quarter) for off in answers.off]


def _in_a_row(answers: Answers, width: int) -> Section:
    seen = answers.seen
    panels = [Panel("image", image(seen, answers.points, width))]
    panels += [
        point_panel(seen, n, point, width)._replace(bars=(), note="") for n, point in enumerate(answers.points, 1)
    ]
    panels += [channel_panel(seen, channel, width)._replace(note="") for channel in answers.channels]
    panels.append(Panel("prediction", labeled(seen, seen.segmentation.labels, width)))
    if answers.truth is not None:
        panels.append(Panel("ground truth", labeled(seen, answers.truth, width)))
    return Section(_name(answers), panels)


def _name(answers: Answers) -> str:
    """The image's, bytes of it that are no text written out."""
    return answers.seen.segmentation.name.encode(errors="backslashreplace").decode()


def _column(columns: int, width: int) -> int:
    return (width - (columns - 1) * GAP) // columns


def _legend(answers: Sequence[Answers]) -> list[tuple[str, Color]]:
    classes = answers[0].seen.segmentation.classes
    maps = [labels for a in answers for labels in (a.seen.segmentation.labels, a.truth) if labels is not None]
    present = np.unique(np.concatenate([np.unique(labels) for labels in maps]))
    return [(classes.names[i], classes.palette[i]) for i in present if i < len(classes)]


def image(seen: Seen, points: Sequence[Point], width: int) -> Image.Image:
    """The image with its points, numbered."""
    image = _fitted(Image.fromarray(seen.image), width)
    for number, point in enumerate(points, 1):
        _cross(image, seen, point, f"#{number}")
    return image


def labeled(seen: Seen, labels: UInt8[np.ndarray, "H W"], width: int) -> Image.Image:
    """The image under its labels' colors."""
    image = _fitted(Image.fromarray(seen.image), width)
    fitted = _nearest(labels, image)
    return Image.fromarray(overlay.overlay(np.asarray(image), fitted, seen.segmentation.classes, 0.7))


def point_panel(seen: Seen, number: int, point: Point, width: int) -> Panel:
    """A sub-attention map: heat over the image from 0 to the largest weight, a line around the strongest positions
    that get half of the attention, the strongest ringed.
    """
    classes = seen.segmentation.classes
    largest = float(point.attention.max())
    image, values = _heat(seen, point.attention / largest, width)
    _outline(image, values > _half(point.attention) / largest)
    for x, y, _ in point.strongest:
        _ring(image, seen, x, y)
    _cross(image, seen, point, f"#{number}")
    bars = [(classes.names[i], classes.palette[i], share) for i, share in point.classes]
    note = f"an equal share would be {1 / point.attention.size:.2%} a position"
    title = f"sub-attention map #{number}, {classes.names[point.class_id]}"
    return Panel(title, image, note, ("0", f"{largest:.2%}"), bars)


def channel_panel(seen: Seen, channel: Channel, width: int) -> Panel:
    """An attended channel map, from its smallest to its largest value."""
    low, high = float(channel.map.min()), float(channel.map.max())
    image, _ = _heat(seen, (channel.map - low) / ((high - low) or 1), width)
    title, note = f"channel map #{channel.number}", "tells no class from the others"
    if channel.class_id is not None:
        name = seen.segmentation.classes.names[channel.class_id]
        title, note = f"{title}, {name}", f"on {name} {channel.response:.1f} sd above elsewhere"
    return Panel(title, image, note, (f"{low:.2g}", f"{high:.2g}"))


def channel_attention_panel(seen: Seen, width: int) -> Panel:
    """X of Eq. 3 as a square, from 0 to its largest weight."""
    weights = seen.channel_attention()
    largest, channels = float(weights.max()), len(weights)
    square = overlay.heat_over(np.full((channels, channels, 3), 128, np.uint8), weights / largest)
    return Panel(
        f"channel attention, {channels} x {channels}",
        Image.fromarray(square).resize((width, width), Image.Resampling.BOX),
        "row: a channel; column: what it attends to",
        ("0", f"{largest:.1%}"),
    )


def changes(seen: Seen, off: Off, truth: UInt8[np.ndarray, "H W"] | None, width: int) -> Image.Image:
    """The image, faint, with the pixels that the module changes, with ground truth the labeled ones: mended, corrupted,
    or otherwise.
    """
    image = _fitted(Image.fromarray(seen.image), width)
    full, without = _nearest(seen.segmentation.labels, image), _nearest(off.segmentation.labels, image)
    canvas = np.asarray(
        Image.blend(image.convert("L").convert("RGB"), Image.new("RGB", image.size, "white"), 0.6)
    ).copy()
    if truth is None:
        canvas[full != without] = CHANGED
    else:
        right = _nearest(truth, image)
        canvas[(full != without) & (right != IGNORE)] = CHANGED
        canvas[(full != without) & (full == right)] = MENDED
        canvas[(full != without) & (without == right)] = CORRUPTED
    return Image.fromarray(canvas)


_MARKS = (
    "Cross: the point. Rings: the five strongest positions. White line: around the strongest positions that together "
    "get half of the attention."
)
_BARS = "Bars: the share of the attention that goes to each predicted class."
_MAPS = (
    "Maps: E of Eq. 4, channels numbered from 0; sd: standard deviations of the map. Square: X of Eq. 3, the weights "
    "that made them."
)


def _overview(answers: Answers, width: int) -> Section:
    seen = answers.seen
    panels = [
        Panel("image", image(seen, answers.points, width)),
        Panel("prediction", labeled(seen, seen.segmentation.labels, width)),
    ]
    if answers.truth is not None:
        panels.append(Panel("ground truth", labeled(seen, answers.truth, width)))
    (rows, columns), (height, shown_width) = seen.grid, seen.shown
    scales = [
        f"{name} {seen.inside.scales[m]:.3f}"
        for m, name in zip(MODULES, ("alpha", "beta"), strict=True)
        if m in seen.inside.scales
    ]
    text = (
        f"The network was shown it as {shown_width} x {height} pixels, and sees it as {columns} x {rows} positions of "
        f"{seen.stride} x {seen.stride}. {', '.join(scales)}."
    )
    return Section("Image and prediction", panels, _legend([answers]), text)


def _comparison(answers: Answers, off: Off, width: int) -> Section:
    seen, note = answers.seen, f"in color: {off.changed:.2%} of the pixels"
    legend = []
    if off.mended is not None and off.corrupted is not None:
        note += f"; {off.mended:.2%} become right, {off.corrupted:.2%} wrong"
        legend = [("becomes right", MENDED), ("becomes wrong", CORRUPTED), ("wrong both times", CHANGED)]
    panels = [
        Panel(f"without {off.module} attention", labeled(seen, off.segmentation.labels, width)),
        Panel(f"with {off.module} attention", labeled(seen, seen.segmentation.labels, width)),
        Panel("what it changes", changes(seen, off, answers.truth, width), note),
    ]
    if answers.truth is not None:
        panels.append(Panel("ground truth", labeled(seen, answers.truth, width)))
    return Section(f"Without and with {off.module} attention", panels, legend)


def _heat(seen: Seen, values: Float32[np.ndarray, "h w"], width: int) -> tuple[Image.Image, Float32[np.ndarray, "H W"]]:
    """Heat over the image, and the values as they lie there."""
    image = _fitted(Image.fromarray(seen.image), width)
    fitted = seen.over_image(values, (image.height, image.width))
    return Image.fromarray(overlay.heat_over(np.asarray(image), fitted)), fitted


def _fitted(image: Image.Image, width: int) -> Image.Image:
    """As wide as `width`, or narrower where it would be more than twice as high."""
    factor = min(width / image.width, 2 * width / image.height)
    size = max(1, round(factor * image.width)), max(1, round(factor * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def _nearest(labels: UInt8[np.ndarray, "H W"], image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    return np.asarray(Image.fromarray(labels).resize(image.size, Image.Resampling.NEAREST))


def _half(attention: Float32[np.ndarray, "h w"]) -> float:
    """The largest weight such that the positions above it, and it, get half of the attention."""
    weights = np.sort(attention, axis=None)[::-1]
    return float(weights[np.searchsorted(weights.cumsum(), 0.5).clip(max=weights.size - 1)])


def _outline(image: Image.Image, inside: np.ndarray) -> None:
    """A white line along the border of a mask."""
    border = np.zeros(inside.shape, bool)
    across, down = inside[:, 1:] != inside[:, :-1], inside[1:] != inside[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    image.paste("white", mask=Image.fromarray(border))


def _at(image: Image.Image, seen: Seen, x: int, y: int) -> tuple[float, float]:
    height, width = seen.image.shape[:2]
    return (x + 0.5) * image.width / width, (y + 0.5) * image.height / height


def _ring(image: Image.Image, seen: Seen, x: int, y: int) -> None:
    center, radius, pen = _at(image, seen, x, y), max(4, image.width / 90), ImageDraw.Draw(image)
    pen.circle(center, radius + 2, outline="black", width=2)
    pen.circle(center, radius, outline="white", width=2)


def _cross(image: Image.Image, seen: Seen, point: Point, text: str) -> None:
    """A red cross edged white, and its number on the side that has room."""
    (x, y), arm, pen = _at(image, seen, point.x, point.y), max(6, image.width / 50), ImageDraw.Draw(image)
    for color, width in (("white", 7), ((200, 0, 0), 3)):
        pen.line((x - arm, y, x + arm, y), color, width)
        pen.line((x, y - arm, x, y + arm), color, width)
    font = ImageFont.load_default(max(20, image.width / 32))
    side = "l" if x < 0.8 * image.width else "r"
    up = y > 0.2 * image.height
    at = x + (arm if side == "l" else -arm), y + (-arm if up else arm)
    anchor = side + ("d" if up else "a")
    pen.text(at, text, (200, 0, 0), font, anchor, stroke_width=3, stroke_fill="white")
