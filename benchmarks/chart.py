"""Curves over logarithmic axes as an SVG image, for `danet bench cost`."""

import math
from collections.abc import Mapping, Sequence

from danet.visualize.html import escape
from danet.visualize.svg import color, image

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 76, 130, 54, 46

Curve = Sequence[tuple[float, float]]


def loglog(title: str, across: str, up: str, curves: Mapping[str, Curve]) -> str:
    """An SVG image, 640 x 400, of named curves of positive (x, y), their points marked and their names at their ends.

    Args:
        across, up: what the axes show, with the unit.
    """
    points = [point for curve in curves.values() for point in curve]
    (x0, x1), (y0, y1) = (_ends([point[i] for point in points]) for i in (0, 1))

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / x0) / math.log(x1 / x0)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(value / y0) / math.log(y1 / y0)

    parts = [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, anchor="middle"), _text(12, TOP - 10, up)]
    for value in log_ticks(x0, x1):
        parts += [_line(x(value), TOP, x(value), HEIGHT - BOTTOM)]
        parts += [_text(x(value), HEIGHT - BOTTOM + 16, f"{value:,g}", anchor="middle")]
    for value in log_ticks(y0, y1):
        parts += [_line(LEFT, y(value), WIDTH - RIGHT, y(value))]
        parts += [_text(LEFT - 6, y(value) + 4, f"{value:,g}", anchor="end")]
    for i, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color(i)}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{color(i)}"/>' for a, b in curve]
        parts.append(_text(x(curve[-1][0]) + 8, y(curve[-1][1]) + 4, name, fill=color(i)))
    return image(WIDTH, HEIGHT, title, "\n".join(parts))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low / 2, high * 2) if low == high else (low / 1.2, high * 1.2)


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`, with their halves and fifths where there are few."""
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line class="grid" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = "var(--ink)") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{fill}"'
    return f'<text class="halo" {place}>{escape(text)}</text>'
