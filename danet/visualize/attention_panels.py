"""Draw the panels of `danet look`, which `attention_figure` arranges as PNG and `attention_page` as HTML."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw, ImageFont

from danet.data.classes import Color
from danet.predict import overlay
from danet.predict.attention import Inspection, Module
from danet.visualize.attention_answers import MODULES, Answers, Channel, Point
from danet.visualize.panels import (
    BROKEN,
    CHANGED,
    CORRECTED,
    GAP,
    Panel,
    PanelGroup,
    Sheet,
    changes,
    column,
    labeled,
    legend,
    name_of,
    photo,
)


def sheet(answers: Sequence[Answers]) -> Sheet:
    """Return all panels of a single image, or one row per image if there are several.

    A row is like those of the paper's Figure 6: image, maps of the points, channel maps, prediction, ground truth. If
    modules were switched off, rows like those of Figure 4 follow, and then of Figure 5: image, prediction without the
    module, with it, ground truth.
    """
    if len(answers) == 1:
        return Sheet(f"Attention of {name_of(answers[0].inspection.segmentation)}", _in_full(answers[0], 1560), 1560)
    rows = [_in_a_row(one, 420) for one in answers]
    rows += [_without(one, module, 420) for module in MODULES for one in answers if module in one.ablations]
    columns = max(len(row.panels) for row in rows)
    rows.append(PanelGroup("Classes", [], _legend(answers), f"{_marks(answers[0].inspection)} {_NUMBERS}"))
    return Sheet(f"Attention of {len(answers)} images", rows, 420 * columns + GAP * (columns - 1))


def _in_full(answers: Answers, width: int) -> list[PanelGroup]:
    half, third, quarter = (column(n, width) for n in (2, 3, 4))
    groups = [_overview(answers, half if answers.truth is None else third)]
    if answers.points:
        panels = [point_panel(answers.inspection, n, point, half) for n, point in enumerate(answers.points, 1)]
        groups.append(
            PanelGroup(
                "Position attention: where a point attends", panels, text=f"{_marks(answers.inspection)} {_BARS}"
            )
        )
    if answers.channels:
        panels = [channel_panel(answers.inspection, channel, third) for channel in answers.channels]
        panels.append(channel_attention_panel(answers.inspection, max(third // 2, min(third, panels[0].image.height))))
        groups.append(PanelGroup("Channel attention: what a channel responds to", panels, text=_MAPS))
    width = third if answers.truth is None else quarter
    return groups + [_comparison(answers, module, width) for module in answers.ablations]


def _in_a_row(answers: Answers, width: int) -> PanelGroup:
    inspection = answers.inspection
    points = [point_panel(inspection, n, point, width) for n, point in enumerate(answers.points, 1)]
    panels = [Panel("image", image(inspection, answers.points, width))]
    panels += [panel._replace(bars=(), note="") for panel in points]
    panels += [channel_panel(inspection, channel, width)._replace(note="") for channel in answers.channels]
    panels.append(Panel("prediction", labeled(inspection.segmentation, inspection.segmentation.labels, width)))
    panels += _truth(answers, width)
    return PanelGroup(name_of(inspection.segmentation), panels)


def image(inspection: Inspection, points: Sequence[Point], width: int) -> Image.Image:
    """Return the image with its points, numbered."""
    image = photo(inspection.segmentation, width)
    for number, point in enumerate(points, 1):
        _cross(image, inspection, point, f"#{number}")
    return image


def point_panel(inspection: Inspection, number: int, point: Point, width: int) -> Panel:
    """Draw a sub-attention map: heat over the image from 0 to the largest weight.

    A line surrounds the strongest positions that receive half of the attention; the five strongest have rings.
    """
    classes = inspection.segmentation.classes
    largest = float(point.attention.max())
    image, values = _heat(inspection, point.attention / largest, width)
    _outline(image, values > _between(point.attention) / largest)
    for x, y, _ in point.strongest:
        _ring(image, inspection, x, y)
    _cross(image, inspection, point, f"#{number}")
    bars = [(classes.names[i], classes.palette[i], share) for i, share in point.classes]
    note = f"uniform attention would be {1 / point.attention.size:.2%} per position"
    if (regions := inspection.internals.regions) is not None:
        note = f"uniform attention would be {1 / len(regions):.2%} per region"
    title = f"sub-attention map #{number}, {classes.names[point.class_id]}"
    return Panel(title, image, note, ("0", f"{largest:.2%}"), bars)


def channel_panel(inspection: Inspection, channel: Channel, width: int) -> Panel:
    """Draw an attended channel map, from its smallest to its largest value."""
    low, high = float(channel.map.min()), float(channel.map.max())
    image, _ = _heat(inspection, (channel.map - low) / ((high - low) or 1), width)
    title, note = f"channel map #{channel.index + 1}", "responds to no class"
    if channel.class_id is not None:
        name = inspection.segmentation.classes.names[channel.class_id]
        title, note = f"{title}, {name}", f"{channel.response:.1f} sd higher on {name} than elsewhere"
    return Panel(title, image, note, (f"{low:.2g}", f"{high:.2g}"))


def channel_attention_panel(inspection: Inspection, width: int) -> Panel:
    """Draw X of Eq. 3 as a square, from 0 to its largest weight."""
    weights = inspection.channel_attention()
    largest, (rows, columns) = float(weights.max()), weights.shape
    square = overlay.heat_over(np.full((rows, columns, 3), 128, np.uint8), weights / largest)
    attended = "channel" if inspection.internals.regions is None else "channel center"
    return Panel(
        f"channel attention, {rows} x {columns}",
        Image.fromarray(square).resize((width, width), Image.Resampling.BOX),
        f"row: channel; column: the {attended} it attends to",
        ("0", f"{largest:.1%}"),
    )


_LINES = (
    "Cross: the point. Rings: the five strongest positions. White line: encloses the strongest positions, which "
    "together receive half of the attention."
)
_BARS = "Bars: share of the attention by predicted class."
_NUMBERS = (
    "Channel maps: the features after channel attention, numbered from 1 as in the paper's Figure 6; #1 has index 0 in "
    "Python."
)
_MAPS = f"{_NUMBERS} sd: standard deviations of the map. Square: how strongly each channel attends to each other one."


def _marks(inspection: Inspection) -> str:
    """Explain the marks of the maps of points, and what the network attends to if not to positions."""
    regions = inspection.internals.regions
    if regions is None:
        return _LINES
    about = (
        f"The network attends to {len(regions)} regions of the image; the weight of each is divided evenly among its"
    )
    return f"{about} positions. {_LINES}"


def _overview(answers: Answers, width: int) -> PanelGroup:
    inspection = answers.inspection
    panels = [
        Panel("image", image(inspection, answers.points, width)),
        Panel("prediction", labeled(inspection.segmentation, inspection.segmentation.labels, width)),
    ]
    panels += _truth(answers, width)
    (rows, columns), (height, input_width) = inspection.grid, inspection.input_size
    scales = [
        f"{name} = {inspection.internals.scales[m]:.3f}"
        for m, name in zip(MODULES, ("alpha", "beta"), strict=True)
        if m in inspection.internals.scales
    ]
    text = (
        f"The network's input has {input_width} x {height} pixels, its feature grid {columns} x {rows} positions at "
        f"stride {inspection.stride}. {', '.join(scales)}."
    )
    return PanelGroup("Image and prediction", panels, _legend([answers]), text)


def _comparison(answers: Answers, module: Module, width: int) -> PanelGroup:
    full, ablation, legend = answers.inspection.segmentation, answers.ablations[module], []
    if ablation.effect.corrected is not None:
        legend = [("becomes right", CORRECTED), ("becomes wrong", BROKEN), ("wrong both times", CHANGED)]
    changed = changes(ablation.segmentation, full, answers.truth, width)
    panels = [
        *_with_and_without(answers, module, width),
        Panel("what it changes", changed, f"in color: {ablation.effect.describe()}"),
        *_truth(answers, width),
    ]
    return PanelGroup(f"Without and with {module} attention", panels, legend)


def _without(answers: Answers, module: Module, width: int) -> PanelGroup:
    """Draw a row of Figure 4 or 5."""
    full = answers.inspection.segmentation
    without, with_module = _with_and_without(answers, module, width)
    note = answers.ablations[module].effect.describe()
    panels = [Panel("image", photo(full, width)), without, with_module._replace(note=note), *_truth(answers, width)]
    return PanelGroup(f"{name_of(full)}: without and with {module} attention", panels)


def _with_and_without(answers: Answers, module: Module, width: int) -> tuple[Panel, Panel]:
    full, without = answers.inspection.segmentation, answers.ablations[module].segmentation
    return (
        Panel(f"without {module} attention", labeled(full, without.labels, width)),
        Panel(f"with {module} attention", labeled(full, full.labels, width)),
    )


def _truth(answers: Answers, width: int) -> list[Panel]:
    if answers.truth is None:
        return []
    return [Panel("ground truth", labeled(answers.inspection.segmentation, answers.truth, width))]


def _legend(answers: Sequence[Answers]) -> list[tuple[str, Color]]:
    maps = [
        labels
        for one in answers
        for labels in (
            one.inspection.segmentation.labels,
            one.truth,
            *(ablation.segmentation.labels for ablation in one.ablations.values()),
        )
    ]
    return legend(answers[0].inspection.segmentation, maps)


def _heat(
    inspection: Inspection, values: Float32[np.ndarray, "h w"], width: int
) -> tuple[Image.Image, Float32[np.ndarray, "H W"]]:
    """Return the heat map over the image, and its values at the image's size."""
    image = photo(inspection.segmentation, width)
    fitted = inspection.interpolate(values, (image.height, image.width))
    return Image.fromarray(overlay.heat_over(np.asarray(image), fitted)), fitted


def _between(attention: Float32[np.ndarray, "h w"]) -> float:
    """Return a value between the strongest weights, which sum to half of the attention, and the others."""
    weights = np.append(np.sort(attention, axis=None)[::-1], 0)
    last = np.searchsorted(weights.cumsum(), 0.5).clip(max=weights.size - 2)
    others = weights[weights < weights[last]]
    return float(weights[last] + (others[0] if others.size else 0)) / 2


def _outline(image: Image.Image, inside: np.ndarray) -> None:
    """Draw a white line along the border of a mask."""
    border = np.zeros(inside.shape, bool)
    across, down = inside[:, 1:] != inside[:, :-1], inside[1:] != inside[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    image.paste("white", mask=Image.fromarray(border))


def _at(image: Image.Image, inspection: Inspection, x: int, y: int) -> tuple[float, float]:
    height, width = inspection.image.shape[:2]
    return (x + 0.5) * image.width / width, (y + 0.5) * image.height / height


def _ring(image: Image.Image, inspection: Inspection, x: int, y: int) -> None:
    center, radius, pen = _at(image, inspection, x, y), max(4, image.width / 90), ImageDraw.Draw(image)
    pen.circle(center, radius + 2, outline="black", width=2)
    pen.circle(center, radius, outline="white", width=2)


def _cross(image: Image.Image, inspection: Inspection, point: Point, text: str) -> None:
    """Draw a red cross with a white edge, and its number on the side with space."""
    extent = min(image.width, 3 * image.height)
    (x, y), arm, pen = _at(image, inspection, point.x, point.y), max(6, extent / 50), ImageDraw.Draw(image)
    for color, width in (("white", 7), ((200, 0, 0), 3)):
        pen.line((x - arm, y, x + arm, y), color, width)
        pen.line((x, y - arm, x, y + arm), color, width)
    size = max(20, extent / 32)
    font = ImageFont.load_default(size)
    side = "l" if x < 0.8 * image.width else "r"
    up = y > arm + 1.5 * size
    at = x + (arm if side == "l" else -arm), y + (-arm if up else arm)
    anchor = side + ("d" if up else "a")
    pen.text(at, text, (200, 0, 0), font, anchor, stroke_width=3, stroke_fill="white")
