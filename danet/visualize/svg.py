"""Draw charts as SVG: line charts, a confusion matrix and a reliability diagram. Tooltips show the numbers."""

import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from danet.evaluate.calibration import Bin
from danet.visualize.html import CHART_STYLE, escape, percent, short

_COLORS = 6
_DASHES = (("solid", "none"), ("dashed", "7 4"), ("dotted", "2 3"))
_WIDTH, _HEIGHT = 400, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 26, 40  # margins of a plot
_POINTS, _TOOLTIPS, _DOTS = 1000, 100, 30  # maximum points of a line: drawn, with tooltips, and as visible dots
_CELLS, _SIDES, _MATRIX = 4000, (7, 34), 680  # of the matrix: maximum cells, limits of their side, width
_OPACITY = 0.55  # of the darkest cell: numbers stay readable in both themes


class Series(NamedTuple):
    """A line: its name in the legend, its x and its y values, as many of each; points with y = nan are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Frame:
    """The scales of a plot, from ranges of data to pixels of the SVG, and its axes.

    Args:
        x: the range of the data along x.
        y: the range of the data along y.
        height: of the SVG.
        width: of the SVG.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = _HEIGHT, width: int = _WIDTH):
        self.height, self.width = height, width
        (self.left, self.right), (self.low, self.high) = x, y

    def x(self, value: float) -> float:
        """Return a value's x in the SVG."""
        return _LEFT + (value - self.left) / ((self.right - self.left) or 1) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return a value's y in the SVG."""
        return self.height - _BOTTOM - (value - self.low) / (self.high - self.low) * (self.height - _TOP - _BOTTOM)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_title: str, y_title: str) -> str:
        """Return both axes with numbers and titles, and grid lines at the ticks of y."""
        end, floor = self.width - _RIGHT, self.height - _BOTTOM
        parts = [f'<text class="soft" x="0" y="12">{escape(y_title)}</text>']
        parts.append(f'<text class="soft" x="{end}" y="{self.height - 4}" text-anchor="end">{escape(x_title)}</text>')
        for tick in y_ticks:
            at = self.y(tick)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{end}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
        for tick in x_ticks:
            at = self.x(tick)
            parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>')
            parts.append(f'<text x="{at:.1f}" y="{floor + 17}" text-anchor="middle">{_number(tick)}</text>')
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{end}" y1="{floor}" y2="{floor}"/>')
        return "".join(parts)


def lines(title: str, series: Sequence[Series], x_title: str, y_title: str) -> str:
    """Return a line chart, with a legend if there are several lines; an empty string if there are no finite numbers."""
    x = [value for line in series for value in line.x]
    y = [value for line in series for value in line.y if math.isfinite(value)]
    if not y:
        return ""
    y_ticks, x_ticks = ticks(min(y), max(y)), ticks(min(x), max(x), whole=all(value == round(value) for value in x))
    x_ticks = [tick for tick in x_ticks if min(x) <= tick <= max(x)]
    frame = Frame((min(x), max(x)), (min(*y, y_ticks[0]), max(*y, y_ticks[-1])))
    drawn = [_line(line, frame, i, x_title) for i, line in enumerate(series)]
    legend = (
        "".join(f"<span>{key(i)}{escape(line.name)}</span> " for i, line in enumerate(series))
        if len(series) > 1
        else ""
    )
    svg = _svg(frame.width, frame.height, title, frame.axes(x_ticks, y_ticks, x_title, y_title) + "".join(drawn))
    return f"<figure><figcaption><b>{escape(title)}</b> {legend}</figcaption>{svg}</figure>"


def reliability(table: Sequence[Bin], error: float) -> str:
    """Return a reliability diagram: accuracy over confidence, by bin.

    Args:
        table: the bins.
        error: the expected calibration error.
    """
    frame, floor = Frame((0, 1), (0, 1), 330), 330 - _BOTTOM
    grid = [i / 5 for i in range(6)]
    parts = [frame.axes(grid, grid, "confidence", "accuracy")]
    total = max(sum(row.pixels for row in table), 1)
    for row in (row for row in table if row.pixels):
        left, right, top = frame.x(row.low), frame.x(row.high), frame.y(row.accuracy)
        tooltip = (
            f"confidence {row.low:.2f} to {row.high:.2f}: {row.pixels:,} pixels ({percent(row.pixels / total)}%), "
            f"mean confidence {row.confidence:.3f}, accuracy {row.accuracy:.3f}"
        )
        box = f'x="{left + 0.5:.1f}" width="{right - left - 1:.1f}"'
        parts.append(
            f'<g><title>{tooltip}</title><rect {box} y="{top:.1f}" height="{floor - top:.1f}" fill="var(--c0)"'
            f' fill-opacity="{0.25 + 0.75 * math.sqrt(row.pixels / total):.2f}"/>'
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{frame.y(row.confidence):.1f}"'
            f' y2="{frame.y(row.confidence):.1f}" stroke="var(--c1)" stroke-width="2.5"/></g>'
        )
    ends = f'x1="{frame.x(0)}" y1="{frame.y(0)}" x2="{frame.x(1)}" y2="{frame.y(1)}"'
    parts.append(f'<line class="axis" {ends} stroke-dasharray="4 4"/>')
    caption = (
        f"<b>Reliability</b>: accuracy of the pixels by confidence; orange: their mean confidence. Bars below the"
        f" orange line: overconfident. Darker bars have more pixels. Expected calibration error (ECE): "
        f"{percent(error, 2, '%')}."
    )
    svg = _svg(frame.width, frame.height, "reliability diagram", "".join(parts))
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


def matrix(counts: np.ndarray, names: Sequence[str]) -> str:
    """Return the confusion matrix. Cells show their share of the row's pixels in %, if it fits and is at least 0.5.

    Correct pixels are blue, wrong ones orange, rows without pixels gray. Only the 4,000 cells with the largest shares
    are drawn.

    Args:
        counts: K,K pixels; row = true class, column = predicted.
        names: of the classes.
    """
    pixels = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(pixels, 1)
    cell = min(max(_MATRIX // len(names), _SIDES[0]), _SIDES[1])
    font, labels = min(11.5, cell - 1.0), [short(name, 22) for name in names]
    left = round(font * max(map(_width, labels))) + 10  # of the top as well: labels are rotated there
    side = cell * len(names)
    parts = []
    for i, name in enumerate(labels):
        middle, edge, style = left + (i + 0.5) * cell + font / 3, left + i * cell, f'style="font-size:{font:.1f}px"'
        parts.append(f'<text {style} x="{left - 6}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        rotated = f'transform="translate({middle:.1f} {left - 6}) rotate(-90)"'
        parts.append(f"<text {style} {rotated}>{escape(name)}</text>")
        parts.append(f'<path class="grid" d="M{left} {edge}h{side}M{edge} {left}v{side}"/>')
        if not pixels[i]:
            row = f'<rect x="{left}" y="{edge}" width="{side}" height="{cell}" fill="var(--line)"/>'
            parts.append(f"<g><title>{escape(names[i])}: no pixels</title>{row}</g>")
    parts.append(f'<path class="grid" fill="none" d="M{left} {left + side}h{side}v{-side}"/>')
    order = np.argsort(-shares, axis=None, kind="stable")[:_CELLS]
    least = max(0.005, float(shares.flat[order[-1]]) if len(order) < shares.size else 0.0)
    for row, column in (divmod(int(i), len(names)) for i in order if shares.flat[i] >= least):
        tooltip = f"{short(names[row], 30)} predicted as {short(names[column], 30)}"
        tooltip += f": {percent(shares[row, column])}%, {counts[row, column]:,} pixels"
        corner = left + column * cell, left + row * cell
        parts.append(_cell(shares[row, column], row == column, corner, cell, tooltip))
    svg = _svg(left + side + 2, left + side + 2, "confusion matrix", "".join(parts))
    note = f"Row: true class; column: predicted; in % of the row's pixels. Shares below {percent(least)}% are empty."
    return f'<p class="note">{note}</p><div class="wide">{svg}</div>'


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return at most seven round numbers that enclose [low, high]; with `whole`, whole numbers."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= span)
    step = max(step, 1) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def image(width: float, height: float, title: str, content: str) -> str:
    """Return a standalone SVG file with background, colors and title, for light and dark themes."""
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif" role="img">'
    paper = f'<rect width="{width:.0f}" height="{height:.0f}" style="fill:var(--paper)"/>'
    top = f'<text x="12" y="20" style="font-size:14px;font-weight:600">{escape(title)}</text>'
    return f"{head}<title>{escape(title)}</title><style>{CHART_STYLE}</style>{paper}{top}{content}</svg>\n"


def color(index: int) -> str:
    """Return the CSS color of the line with this index; there are six."""
    return f"var(--c{index % _COLORS})"


def key(index: int) -> str:
    """Return a line's sample for a legend, as HTML."""
    return f'<i class="key" style="border-top:2.5px {_DASHES[index // _COLORS % 3][0]} {color(index)}"></i>'


def _cell(share: float, correct: bool, corner: tuple[int, int], side: int, tooltip: str) -> str:
    box = f'x="{corner[0]}" y="{corner[1]}" width="{side}" height="{side}"'
    fill = f'fill="{color(0 if correct else 1)}" fill-opacity="{_OPACITY * share**0.7:.2f}"'
    number = ""
    if side >= 24:
        middle = f'x="{corner[0] + side / 2:.1f}" y="{corner[1] + side / 2 + 4:.1f}"'
        number = f'<text {middle} text-anchor="middle">{100 * share:.0f}</text>'
    return f"<g><title>{escape(tooltip, 120)}</title><rect {box} {fill}/>{number}</g>"


def _line(line: Series, frame: Frame, index: int, x_title: str) -> str:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return ""
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in _thinned(points, _POINTS))
    dashes = f'stroke-dasharray="{_DASHES[index // _COLORS % 3][1]}"'
    parts = [f'<polyline points="{path}" fill="none" stroke="{color(index)}" stroke-width="2" {dashes}/>']
    fill = color(index) if len(points) <= _DOTS else "transparent"
    for x, y in _thinned(points, _TOOLTIPS):
        tooltip = f"{line.name}, {x_title} {_number(x)}: {y:.5g}"
        dot = f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3" fill="{fill}">'
        parts.append(f"{dot}<title>{escape(tooltip)}</title></circle>")
    return "".join(parts)


def _thinned(points: list[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """Return every n-th point and the last, about `limit`."""
    step = math.ceil(len(points) / limit) or 1
    return points[:-1:step] + points[-1:]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _svg(width: float, height: float, title: str, content: str) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg {size} role="img" aria-label="{escape(title)}">{content}</svg>'


def _width(text: str) -> float:
    """Return the largest width of a text in units of its font size: Chinese characters are as wide as they are high."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WFA" else 0.62 for c in text)
